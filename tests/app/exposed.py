"""What `/metrics` says, read as Prometheus reads it."""

from __future__ import annotations

from dataclasses import dataclass

import httpx
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True)
class Exposed:
    """One scrape."""

    families: list[Metric]

    @classmethod
    def of(cls, http: httpx.Client) -> Exposed:
        answer = http.get("/metrics")
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return cls.read(answer.text)

    @classmethod
    def read(cls, text: str) -> Exposed:
        families = list(text_string_to_metric_families(text))
        names = [family.name for family in families]
        assert len(names) == len(set(names)), "a family is told of twice"
        return cls(families)

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples with that name and at least those labels; there must be one."""
        found = [
            sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert found, f"no {name} with {labels}"
        return sum(found)

    def has(self, name: str, **labels: str) -> bool:
        return any(
            sample.name == name and labels.items() <= sample.labels.items()
            for family in self.families
            for sample in family.samples
        )

    @property
    def labels(self) -> dict[str, frozenset[str]]:
        """The names of the labels of every series, by its name."""
        found: dict[str, frozenset[str]] = {}
        for family in self.families:
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, frozenset()) | sample.labels.keys()
        return found
