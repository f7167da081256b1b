"""The events that the engine reports to observers, such as metrics and statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from app.engine.model_source import ModelSource

Outcome = Literal["ok", "rejected", "expired", "cancelled", "failed"]


class Observer(Protocol):
    """Called on the event loop during requests: methods must return at once and raise nothing."""

    def batch_predicted(
        self, model: ModelSource, *, backend: str, queue_s: Sequence[float], inference_s: float
    ) -> None:
        """Reports a finished batch. queue_s: seconds that each of its views waited for the device."""

    def image_predicted(self, model: ModelSource, *, backend: str, decode_s: float, finish_s: float) -> None:
        """Reports a finished image. backend: the backend of its views.

        decode_s: from the bytes to the views. finish_s: from the outputs to the prediction.
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
        """Reports the end of a request. model: None if the reference was never resolved.

        backend: the backend, if the request was answered.
        outcome: ok for an answer, perhaps with an error of an image; rejected if the engine was full; expired past the
        deadline; cancelled if the client disconnected; failed otherwise.
        """
