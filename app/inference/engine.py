"""The serving engine: images wait in bounds, are decoded beside the event loop, and go to the device by requests.

The way of a request: admit (or refuse), find and load the model, decode and resize in the decode pool, wait for the
device's lane, predict. Decoded images shrink to what the network sees at once, so memory does not grow with their size.
Nothing here knows HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import torch
from torch import Tensor

from app.inference.errors import DeadlineExceeded, EngineFull, ModelLoading, OutOfDeviceMemory, UnknownCategory
from app.inference.loaded_models import LoadedModel, LoadedModels, ModelSource
from models.drawing import annotate_classes
from models.errors import ImageError, ImageTooLarge
from models.images import decode_image, encode_image
from models.predictions import ClassScore
from models.predictor import Predictor, top_classes

Result = TypeVar("Result")

_BATCH_IMAGES = 32  # larger batches take memory and gain nothing
_LONGEST_RETRY_S = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Which of a model's categories to answer with."""

    top_k: int = 5
    score_threshold: float = 0.0
    categories: frozenset[str] = frozenset()  # only these; empty: all


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageScores:
    """What a model says of one image."""

    width: int  # px, upright
    height: int
    classes: list[ClassScore]


@dataclass(kw_only=True, slots=True)
class Times:
    """Milliseconds of a request, over all its images."""

    decode_ms: float = 0.0
    queue_ms: float = 0.0
    inference_ms: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One entry an image, in their order."""

    model: ModelSource
    images: list[ImageScores | ImageError]
    times: Times


@dataclass(frozen=True, kw_only=True, slots=True)
class _Prepared:
    width: int
    height: int
    pixels: Tensor  # uint8 [C, crop, crop]


@dataclass(kw_only=True, slots=True)
class _Pace:
    """How long an image takes lately, from admission to answer of its request."""

    image_s: float = 0.05
    _weight: float = field(default=0.2, repr=False)

    def note(self, images: int, elapsed_s: float) -> None:
        self.image_s += self._weight * (elapsed_s / images - self.image_s)


class Engine:
    """Classifies images with the models of a registry and the catalogue. To be used from one event loop."""

    def __init__(
        self,
        models: LoadedModels,
        *,
        decode_threads: int,
        max_pending_images: int,
        max_image_bytes: int,
        max_image_pixels: int,
    ) -> None:
        self.models = models
        self.decode_threads = decode_threads
        self.max_pending_images = max_pending_images
        self.pending_images = 0
        self._max_image_bytes = max_image_bytes
        self._max_image_pixels = max_image_pixels
        self._pace = _Pace()
        self._decoders = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")
        self._lane = ThreadPoolExecutor(1, thread_name_prefix="infer")

    async def classify(
        self, reference: str, images: Sequence[bytes], selection: Selection, *, timeout_s: float
    ) -> Answer:
        """Scores of each image; an image that cannot be used has its error instead.

        Raises EngineFull, ModelLoading, DeadlineExceeded, OutOfDeviceMemory, UnknownCategory, ModelsError.
        """
        deadline = time.monotonic() + timeout_s
        self._admit(len(images))
        started_at = time.monotonic()
        try:
            model = await self._model(reference, deadline)
            _check_categories(selection.categories, model)
            return await _before(deadline, self._classify(model, images, selection, deadline), timeout_s)
        finally:
            self.pending_images -= len(images)
            self._pace.note(len(images), time.monotonic() - started_at)

    async def draw(self, data: bytes, classes: Sequence[ClassScore], image_format: Literal["png", "jpeg"]) -> bytes:
        """The image with its predictions written on it, encoded. Raises ImageError."""
        return await self._decode_pool(_draw, data, classes, image_format, self._max_image_pixels)

    async def close(self) -> None:
        """Stops taking work; what runs ends by itself."""
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._lane.shutdown(wait=False, cancel_futures=True)
        await self.models.close()

    def _admit(self, images: int) -> None:
        waiting = self.pending_images
        if waiting + images > self.max_pending_images:
            retry_after_s = min(_LONGEST_RETRY_S, max(1, round(waiting * self._pace.image_s)))
            raise EngineFull(
                f"{waiting} images wait already, and {self.max_pending_images} are the most.",
                hint=f"Send these {images} again in {retry_after_s} s.",
                retry_after_s=retry_after_s,
            )
        self.pending_images += images

    async def _model(self, reference: str, deadline: float) -> LoadedModel:
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await self.models.get(reference)
        except TimeoutError as error:
            raise ModelLoading(f"{reference} is still being loaded.", hint="Ask again: loading goes on.") from error

    async def _classify(
        self, model: LoadedModel, images: Sequence[bytes], selection: Selection, deadline: float
    ) -> Answer:
        times = Times()
        began_at = time.perf_counter()
        prepared = await asyncio.gather(*(self._decode_pool(self._prepare, model.predictor, data) for data in images))
        times.decode_ms = _ms_since(began_at)
        usable = [image for image in prepared if isinstance(image, _Prepared)]
        classes = iter(await self._infer(model, usable, selection, deadline, times) if usable else ())
        entries = [
            image
            if isinstance(image, ImageError)
            else ImageScores(width=image.width, height=image.height, classes=next(classes))
            for image in prepared
        ]
        return Answer(model=model.source, images=entries, times=times)

    def _prepare(self, predictor: Predictor, data: bytes) -> _Prepared | ImageError:
        """In the decode pool."""
        try:
            if len(data) > self._max_image_bytes:
                hint = "Send a smaller or more compressed image."
                msg = f"The image has {len(data)} bytes, and {self._max_image_bytes} are the most."
                raise ImageTooLarge(msg, hint=hint)
            image = decode_image(data, max_pixels=self._max_image_pixels)
        except ImageError as error:
            return error
        return _Prepared(width=image.shape[2], height=image.shape[1], pixels=predictor.prepare(image))

    async def _infer(
        self, model: LoadedModel, images: Sequence[_Prepared], selection: Selection, deadline: float, times: Times
    ) -> list[list[ClassScore]]:
        queued_at = time.perf_counter()

        def in_lane() -> list[list[ClassScore]]:
            times.queue_ms = _ms_since(queued_at)
            began_at = time.perf_counter()
            scores = _predict(model.predictor, [image.pixels for image in images], deadline)
            classes = [_select(row, model.predictor.categories, selection) for row in scores]
            times.inference_ms = _ms_since(began_at)
            return classes

        return await asyncio.get_running_loop().run_in_executor(self._lane, in_lane)

    async def _decode_pool(self, work: Callable[..., Result], *args: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._decoders, work, *args)


async def _before(deadline: float, work: Awaitable[Result], timeout_s: float) -> Result:
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            return await work
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"The prediction was not ready within {timeout_s:g} s.", hint="Send fewer images at a time, or try later."
        ) from error


def _predict(predictor: Predictor, images: Sequence[Tensor], deadline: float) -> list[Tensor]:
    """In the device's lane: nothing else computes there meanwhile. Past the deadline nobody waits for the rest."""
    scores: list[Tensor] = []
    try:
        for start in range(0, len(images), _BATCH_IMAGES):
            if time.monotonic() > deadline:
                raise TimeoutError
            scores.extend(predictor.predict_prepared(torch.stack(list(images[start : start + _BATCH_IMAGES]))))
    except torch.OutOfMemoryError as error:
        raise OutOfDeviceMemory(
            "The images do not fit into the device's memory.", hint="Send fewer at a time, or try later."
        ) from error
    return scores


def _check_categories(wanted: frozenset[str], model: LoadedModel) -> None:
    unknown = sorted(wanted.difference(model.predictor.categories))
    if unknown:
        known = model.predictor.categories
        shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
        raise UnknownCategory(
            f"{model.source.reference} has no category {', '.join(map(repr, unknown))}.", hint=f"It has {shown}."
        )


def _select(scores: Tensor, categories: Sequence[str], selection: Selection) -> list[ClassScore]:
    if not selection.categories:
        return top_classes(scores, categories, k=selection.top_k, threshold=selection.score_threshold)
    ranked = top_classes(scores, categories, threshold=selection.score_threshold)
    return [score for score in ranked if score.label in selection.categories][: selection.top_k]


def _draw(data: bytes, classes: Sequence[ClassScore], image_format: Literal["png", "jpeg"], max_pixels: int) -> bytes:
    return encode_image(annotate_classes(decode_image(data, max_pixels=max_pixels), classes), image_format)


def _ms_since(began_at: float) -> float:
    return (time.perf_counter() - began_at) * 1000
