"""What the engine answers, and what it keeps of a request until then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import Tensor

from app.inference.loaded_models import ModelSource
from models.errors import ImageError

Prediction = TypeVar("Prediction")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageAnswer(Generic[Prediction]):
    """What a model says of one image."""

    width: int  # px, upright
    height: int
    prediction: Prediction


@dataclass(kw_only=True, slots=True)
class Times:
    """Milliseconds of a request, over all its images."""

    decode_ms: float = 0.0
    queue_ms: float = 0.0
    inference_ms: float = 0.0
    postprocess_ms: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer(Generic[Prediction]):
    """One entry an image, in their order."""

    model: ModelSource
    images: list[ImageAnswer[Prediction] | ImageError]
    times: Times


@dataclass(kw_only=True, slots=True)
class Prepared:
    """A decoded image on its way through the device."""

    width: int  # px, upright
    height: int
    views: list[Tensor]  # uint8 [C, h, w], as the network looks at it
    outputs: dict[int, Any]  # of the views that were predicted, by their place

    @property
    def is_whole(self) -> bool:
        """Whether all its views were predicted."""
        return len(self.outputs) == len(self.views)


class Views:
    """The views of all images of a request, in one line."""

    def __init__(self, images: Sequence[Prepared]) -> None:
        self._owners = [(image, place) for image in images for place in range(len(image.views))]
        self.tensors = [image.views[place] for image, place in self._owners]

    def note(self, numbers: Sequence[int], outputs: Sequence[Any]) -> list[Prepared]:
        """Keeps the outputs of these views. Returns the images that are whole now."""
        whole = []
        for number, output in zip(numbers, outputs, strict=True):
            image, place = self._owners[number]
            image.outputs[place] = output
            if image.is_whole:
                whole.append(image)
        return whole
