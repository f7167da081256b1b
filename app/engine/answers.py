"""What the engine answers, and what it keeps of a request until then."""

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
    """What a model says of one image."""

    width: int  # px, upright
    height: int
    prediction: Prediction


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """Milliseconds of a request: of each part, the image that it took longest for."""

    decode_ms: float = 0.0
    queue_ms: float = 0.0
    inference_ms: float = 0.0
    postprocess_ms: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing(Generic[Prediction]):
    """How an image is made of a request's one image and what was found on it."""

    annotate: Annotate[Prediction]
    fonts: Fonts
    image_format: Literal["png", "jpeg"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer(Generic[Prediction]):
    """One entry an image, in their order."""

    model: ModelSource
    backend: BackendName
    precision: Precision
    images: list[ImageAnswer[Prediction] | ImageError | OutOfDeviceMemory]
    times: Times
    drawn: bytes | None = None  # the image, encoded, where one was asked for
