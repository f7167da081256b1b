"""What each model version has done since the process started: counts and times, as Triton's users know them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from app.engine.model_source import ModelSource
from app.engine.observer import Observer, Outcome


@dataclass(kw_only=True, slots=True)
class Duration:
    """How often something happened, and how long it took in all."""

    count: int = 0
    ns: int = 0

    def add(self, other: Duration) -> None:
        """What happened elsewhere, too."""
        self.count += other.count
        self.ns += other.ns

    def note(self, seconds: float, *, count: int = 1) -> None:
        self.count += count
        self.ns += round(seconds * 1e9)


@dataclass(kw_only=True, slots=True)
class ModelStatistics:
    """Of one version. An image counts once for each view that the network takes of it."""

    last_inference_ms: int = 0  # since 1970; 0: never
    inference_count: int = 0  # images of requests that were answered
    execution_count: int = 0  # batches
    success: Duration = field(default_factory=Duration)  # requests
    fail: Duration = field(default_factory=Duration)  # requests
    queue: Duration = field(default_factory=Duration)  # views
    compute_input: Duration = field(default_factory=Duration)  # images: decoding and the preset
    compute_infer: Duration = field(default_factory=Duration)  # views: each of a batch takes as long as the batch
    compute_output: Duration = field(default_factory=Duration)  # images
    by_batch_size: dict[int, Duration] = field(default_factory=dict)  # batches

    def add(self, other: ModelStatistics) -> None:
        """What the version has done elsewhere, too."""
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
    """Counts by version. To be used from one event loop.

    Requests whose reference nobody has resolved yet belong to no version and are not counted.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._of: defaultdict[str, ModelStatistics] = defaultdict(ModelStatistics)

    def all(self) -> dict[str, ModelStatistics]:
        """Of the versions that were asked for anything, by pinned reference: `ants-bees/3`, `resnet50`."""
        return dict(self._of)

    def batch_predicted(
        self,
        model: ModelSource,
        *,
        backend: str,  # noqa: ARG002
        queue_s: Sequence[float],
        inference_s: float,
    ) -> None:
        """A batch went through the network."""
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
        """An image became its prediction."""
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
        """A request was answered, refused or given up."""
        if model is None:
            return
        found = self._of[model.reference]
        found.last_inference_ms = round(self._now().timestamp() * 1000)
        if outcome == "ok":
            found.inference_count += images
            found.success.note(seconds)
        else:
            found.fail.note(seconds)
