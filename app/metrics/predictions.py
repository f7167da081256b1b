"""Predictions, counted and timed: the engine's observer.

Counting costs the event loop some microseconds per image, so the series of a label set are looked up once and kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram

from app.engine.model_source import ModelSource
from app.engine.observer import Outcome
from app.metrics.buckets import SECONDS, VIEWS

Labels = tuple[str, str]  # model, version

MOST_MODELS: Final = (
    200  # versions with their own series, so that a server with daily versions does not grow without bound
)
OTHER_MODELS: Final[Labels] = ("(other)", "")  # not a valid model name
NO_MODEL: Final[Labels] = ("", "")

OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)

_BACKEND: Final = ("model", "version", "backend")
_OUTCOME: Final = ("model", "version", "outcome")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Timed:
    decode: Histogram
    queue: Histogram
    inference: Histogram
    batch: Histogram
    postprocess: Histogram
    total: Histogram


@dataclass(frozen=True, kw_only=True, slots=True)
class _OutcomeSeries:
    requests: Counter
    images: Counter


class PredictionMetrics:
    """An `Observer` that counts for Prometheus. Used from one event loop."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        """registry: None if the values are read from the files of many processes."""
        self._decode = Histogram(
            "fovea_decode_seconds",
            "From an image's bytes to the network's input, for images with a prediction.",
            _BACKEND,
            buckets=SECONDS,
            registry=registry,
        )
        self._queue = Histogram(
            "fovea_queue_seconds",
            "Time that a decoded image, or a tile, waited for the device.",
            _BACKEND,
            buckets=SECONDS,
            registry=registry,
        )
        self._inference = Histogram(
            "fovea_inference_seconds",
            "Time of the device per batch.",
            _BACKEND,
            buckets=SECONDS,
            registry=registry,
        )
        self._batch = Histogram(
            "fovea_batch_size",
            "Images and tiles per batch.",
            _BACKEND,
            buckets=VIEWS,
            registry=registry,
        )
        self._postprocess = Histogram(
            "fovea_postprocess_seconds",
            "From the network's outputs to an image's prediction.",
            _BACKEND,
            buckets=SECONDS,
            registry=registry,
        )
        self._total = Histogram(
            "fovea_prediction_seconds",
            "A request in the engine from end to end, if it was answered.",
            _BACKEND,
            buckets=SECONDS,
            registry=registry,
        )
        self._requests = Counter(
            "fovea_predictions",
            "Predictions by outcome. ok: answered, perhaps with an image's error. rejected: full. expired: past the "
            "deadline. cancelled: the client disconnected. failed: others. No model label: none was found.",
            _OUTCOME,
            registry=registry,
        )
        self._images = Counter(
            "fovea_images", "Images of the requests that fovea_predictions_total counts.", _OUTCOME, registry=registry
        )
        self._labels: dict[str, Labels] = {}  # by digest
        self._of_backend: dict[tuple[Labels, str], _Timed] = {}
        self._of_outcome: dict[tuple[Labels, Outcome], _OutcomeSeries] = {}

    def batch_predicted(
        self, model: ModelSource, *, backend: str, queue_s: Sequence[float], inference_s: float
    ) -> None:
        timed = self._timed(self.labels_of(model), backend)
        for seconds in queue_s:
            timed.queue.observe(seconds)
        timed.inference.observe(inference_s)
        timed.batch.observe(len(queue_s))

    def image_predicted(self, model: ModelSource, *, backend: str, decode_s: float, finish_s: float) -> None:
        timed = self._timed(self.labels_of(model), backend)
        timed.decode.observe(decode_s)
        timed.postprocess.observe(finish_s)

    def request_ended(
        self,
        reference: str,  # noqa: ARG002 -- the protocol's
        model: ModelSource | None,
        *,
        outcome: Outcome,
        images: int,
        seconds: float,
        backend: str | None = None,
    ) -> None:
        """Counts the request. The reference is not a label, because callers can invent references."""
        labels = NO_MODEL if model is None else self.labels_of(model)
        series = self._outcome_series(labels, outcome)
        series.requests.inc()
        if images:  # a refusal has no images
            series.images.inc(images)
        if backend is not None:
            self._timed(labels, backend).total.observe(seconds)

    def labels_of(self, model: ModelSource) -> Labels:
        """The labels of the model's series."""
        labels = self._labels.get(model.digest)
        if labels is None:
            if len(self._labels) >= MOST_MODELS:
                return OTHER_MODELS
            labels = self._labels[model.digest] = (model.name, "" if model.version is None else str(model.version))
        return labels

    def _timed(self, labels: Labels, backend: str) -> _Timed:
        timed = self._of_backend.get((labels, backend))
        if timed is None:
            timed = self._of_backend[labels, backend] = _Timed(
                decode=self._decode.labels(*labels, backend),
                queue=self._queue.labels(*labels, backend),
                inference=self._inference.labels(*labels, backend),
                batch=self._batch.labels(*labels, backend),
                postprocess=self._postprocess.labels(*labels, backend),
                total=self._total.labels(*labels, backend),
            )
        return timed

    def _outcome_series(self, labels: Labels, outcome: Outcome) -> _OutcomeSeries:
        """All outcomes of a model start at 0 together, so that Prometheus sees the first refusal as an increase."""
        if (labels, outcome) not in self._of_outcome:
            for each in OUTCOMES:
                self._of_outcome[labels, each] = _OutcomeSeries(
                    requests=self._requests.labels(*labels, each), images=self._images.labels(*labels, each)
                )
        return self._of_outcome[labels, outcome]
