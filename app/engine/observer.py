"""What the engine tells those who watch it: metrics, statistics. It knows neither."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from app.engine.model_source import ModelSource

Outcome = Literal["ok", "rejected", "expired", "cancelled", "failed"]


class Observer(Protocol):
    """Is called on the event loop, in the middle of requests: it must return at once and raise nothing."""

    def batch_predicted(
        self, model: ModelSource, *, backend: str, queue_s: Sequence[float], inference_s: float
    ) -> None:
        """A batch went through the network. queue_s: how long each of its views had waited for the device."""

    def image_predicted(self, model: ModelSource, *, backend: str, decode_s: float, finish_s: float) -> None:
        """An image became its prediction. backend: what its views ran on.

        decode_s: from its bytes to the network's views. finish_s: from the outputs to the prediction.
        """

    def request_ended(
        self,
        reference: str,
        model: ModelSource | None,
        *,
        outcome: Outcome,
        images: int,
        seconds: float,
        backend: str | None = None,
    ) -> None:
        """A request was answered, refused or given up. model: None if nobody knows what the reference means.

        backend: what it ran on, if it was answered.

        ok: there was an answer, were it an image's error. rejected: full. expired: past its deadline. cancelled: the
        client went. failed: everything else.
        """
