"""Counts and times per model version since the start of the process, as Triton reports them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from app.engine.model_source import ModelSource
from app.engine.observer import Observer, Outcome


@dataclass(kw_only=True, slots=True)
class Duration:
    """How often something happened, and its total time."""

    count: int = 0
    ns: int = 0

    def add(self, other: Duration) -> None:
        """Adds the counts and time of `other`."""
        self.count += other.count
        self.ns += other.ns

    def note(self, seconds: float, *, count: int = 1) -> None:
        self.count += count
        self.ns += round(seconds * 1e9)


@dataclass(kw_only=True, slots=True)
class ModelStatistics:
    """The statistics of one version. An image counts once per view."""

    last_inference_ms: int = 0  # Unix time; 0 for never
    inference_count: int = 0  # images of requests that were answered
    execution_count: int = 0  # batches
    success: Duration = field(default_factory=Duration)  # requests
    fail: Duration = field(default_factory=Duration)  # requests
    queue: Duration = field(default_factory=Duration)  # views
    compute_input: Duration = field(default_factory=Duration)  # images: decoding and the preset
    compute_infer: Duration = field(default_factory=Duration)  # views: each takes as long as its batch
    compute_output: Duration = field(default_factory=Duration)  # images
    by_batch_size: dict[int, Duration] = field(default_factory=dict)  # batches

    def add(self, other: ModelStatistics) -> None:
        """Adds the statistics of another replica."""
        self.last_inference_ms = max(self.last_inference_ms, other.last_inference_ms)
        self.inference_count += other.inference_count
        self.execution_count += other.execution_count
        self.success.add(other.success)
        self.fail.add(other.fail)
        self.queue.add(other.queue)
        self.compute_input.add(other.compute_input)
        self.compute_infer.add(other.compute_infer)
        self.compute_output.add(other.compute_output)
        for size, duration in other.by_batch_size.items():
            self.by_batch_size.setdefault(size, Duration()).add(duration)


class Statistics(Observer):
    """Counts by version. Used from one event loop.

    A request whose reference was not resolved belongs to no version and is not counted.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._of: defaultdict[str, ModelStatistics] = defaultdict(ModelStatistics)

    def all(self) -> dict[str, ModelStatistics]:
        """The statistics of all used versions, by pinned reference: `ants-bees/3`, `resnet50`."""
        return dict(self._of)

    def batch_predicted(
        self,
        model: ModelSource,
        *,
        backend: str,  # noqa: ARG002
        queue_s: Sequence[float],
        inference_s: float,
    ) -> None:
        """See Observer."""
        found = self._of[model.reference]
        size = len(queue_s)
        found.execution_count += 1
        found.queue.note(sum(queue_s), count=size)
        found.compute_infer.note(inference_s * size, count=size)
        found.by_batch_size.setdefault(size, Duration()).note(inference_s)

    def image_predicted(
        self,
        model: ModelSource,
        *,
        backend: str,  # noqa: ARG002
        decode_s: float,
        finish_s: float,
    ) -> None:
        """See Observer."""
        found = self._of[model.reference]
        found.compute_input.note(decode_s)
        found.compute_output.note(finish_s)

    def request_ended(
        self,
        reference: str,  # noqa: ARG002
        model: ModelSource | None,
        *,
        outcome: Outcome,
        images: int,
        seconds: float,
        backend: str | None = None,  # noqa: ARG002
    ) -> None:
        """See Observer."""
        if model is None:
            return
        found = self._of[model.reference]
        found.last_inference_ms = round(self._now().timestamp() * 1000)
        if outcome == "ok":
            found.inference_count += images
            found.success.note(seconds)
        else:
            found.fail.note(seconds)
