"""What the engine tells those who watch it: metrics, statistics. It knows neither."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from app.inference.model_source import ModelSource

Outcome = Literal["ok", "rejected", "expired", "cancelled", "failed"]


class Observer(Protocol):
    """Is called on the event loop, in the middle of requests: it must return at once and raise nothing."""

    def image_prepared(self, model: ModelSource, *, seconds: float) -> None:
        """An image was decoded and made into the network's views."""

    def batch_predicted(
        self, model: ModelSource, *, backend: str, queue_s: Sequence[float], inference_s: float
    ) -> None:
        """A batch went through the network. queue_s: how long each of its views had waited for the device."""

    def image_finished(self, model: ModelSource, *, seconds: float) -> None:
        """The outputs of an image became its prediction."""

    def request_ended(
        self, reference: str, model: ModelSource | None, *, outcome: Outcome, images: int, seconds: float
    ) -> None:
        """A request was answered, refused or given up. model: None if nobody knows what the reference means.

        ok: there was an answer, were it an image's error. rejected: full. expired: past its deadline. cancelled: the
        client went. failed: everything else.
        """
