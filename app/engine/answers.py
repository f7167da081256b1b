"""The answers of the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from torch import Tensor

from app.engine.errors import OutOfDeviceMemory
from app.engine.model_source import ModelSource
from models.backends.backend import BackendName
from models.drawing.fonts import Fonts
from models.errors import ImageError
from models.precision import Precision

Prediction = TypeVar("Prediction")
Annotate = Callable[[Tensor, Prediction, Fonts], Tensor]  # draws a prediction on an image; both are uint8 [3, H, W]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageAnswer(Generic[Prediction]):
    """The prediction for one image."""

    width: int  # px, upright
    height: int
    prediction: Prediction


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """Milliseconds of a request per stage, for the image that spent the longest in it."""

    decode_ms: float = 0.0
    queue_ms: float = 0.0
    inference_ms: float = 0.0
    postprocess_ms: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing(Generic[Prediction]):
    """How the prediction is drawn on the only image of a request."""

    annotate: Annotate[Prediction]
    fonts: Fonts
    image_format: Literal["png", "jpeg"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer(Generic[Prediction]):
    """One entry per image, in the order of the images."""

    model: ModelSource
    backend: BackendName
    precision: Precision
    images: list[ImageAnswer[Prediction] | ImageError | OutOfDeviceMemory]
    times: Times
    drawn: bytes | None = None  # the drawn image, encoded, if requested
