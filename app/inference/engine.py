"""The serving engine: images wait in bounds, are decoded beside the event loop, and go to the device batch by batch.

The way of a request, whatever its task: admit (or refuse), find and load the model, decode and prepare in the decode
pool, wait for the device's lane, predict, finish in the pool. Decoded images shrink to what the network sees at once,
and outputs are finished before the next batch, so memory does not grow with their size. Nothing here knows HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

import torch
from torch import Tensor

from app.inference.answers import Answer, ImageAnswer, Prepared, Times, Views
from app.inference.errors import (
    DeadlineExceeded,
    EngineFull,
    ModelLoading,
    OutOfDeviceMemory,
    UnknownCategory,
    WrongTask,
)
from app.inference.loaded_models import LoadedModel, LoadedModels
from models.errors import ImageError, ImageTooLarge, TooManyTiles
from models.images import decode_image, encode_image, read_image_size
from models.manifest import Task
from models.predictor import AnyPredictor, Selection, batches

Result = TypeVar("Result")
Prediction = TypeVar("Prediction")

_LONGEST_RETRY_S = 60
_ASKED_BY: Final[dict[Task, str]] = {"classification": "classify", "detection": "detect", "segmentation": "segment"}


@dataclass(kw_only=True, slots=True)
class _Pace:
    """How long a view takes lately, from admission to answer of its request."""

    view_s: float = 0.05
    _weight: float = field(default=0.2, repr=False)

    def note(self, views: int, elapsed_s: float) -> None:
        self.view_s += self._weight * (elapsed_s / views - self.view_s)


class Engine:
    """Predicts with the models of a registry and the catalogue. To be used from one event loop."""

    def __init__(
        self,
        models: LoadedModels,
        *,
        decode_threads: int,
        max_pending_images: int,
        max_image_bytes: int,
        max_image_pixels: int,
    ) -> None:
        """max_pending_images: each tile of a large picture counts as one."""
        self.models = models
        self.decode_threads = decode_threads
        self.max_pending_images = max_pending_images
        self.pending_images = 0
        self._max_image_bytes = max_image_bytes
        self._max_image_pixels = max_image_pixels
        self._pace = _Pace()
        self._decoders = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")
        self._lane = ThreadPoolExecutor(1, thread_name_prefix="infer")

    async def predict(
        self, reference: str, images: Sequence[bytes], selection: Selection[Prediction], *, timeout_s: float
    ) -> Answer[Prediction]:
        """The prediction for each image; an image that cannot be used has its error instead.

        Raises EngineFull, ModelLoading, DeadlineExceeded, OutOfDeviceMemory, WrongTask, UnknownCategory, ModelsError.
        """
        deadline = time.monotonic() + timeout_s
        views = await _run(self._decoders, _count_views, images, selection) if selection.is_tiled else len(images)
        self._admit(views)
        started_at = time.monotonic()
        try:
            model = await self._model(reference, deadline)
            _check(model, selection)
            return await _before(deadline, self._predict(model, images, selection, deadline), timeout_s)
        finally:
            self.pending_images -= views
            self._pace.note(views, time.monotonic() - started_at)

    async def draw(
        self, data: bytes, annotate: Callable[[Tensor], Tensor], image_format: Literal["png", "jpeg"]
    ) -> bytes:
        """The image as `annotate` makes it, uint8 [3, H, W] both times, encoded. Raises ImageError."""
        return await _run(self._decoders, _draw, data, annotate, image_format, self._max_image_pixels)

    async def close(self) -> None:
        """Stops taking work; what runs ends by itself."""
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._lane.shutdown(wait=False, cancel_futures=True)
        await self.models.close()

    def _admit(self, views: int) -> None:
        waiting, most = self.pending_images, self.max_pending_images
        if views > most:
            raise TooManyTiles(
                f"The request has {views} images and tiles, and {most} are the most that may wait.",
                hint="Send fewer images at a time, or ask for larger tiles.",
            )
        if waiting + views > most:
            retry_after_s = min(_LONGEST_RETRY_S, max(1, round(waiting * self._pace.view_s)))
            raise EngineFull(
                f"{waiting} images wait already, and {most} are the most.",
                hint=f"Send these {views} again in {retry_after_s} s.",
                retry_after_s=retry_after_s,
            )
        self.pending_images += views

    async def _model(self, reference: str, deadline: float) -> LoadedModel:
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await self.models.get(reference)
        except TimeoutError as error:
            raise ModelLoading(f"{reference} is still being loaded.", hint="Ask again: loading goes on.") from error

    async def _predict(
        self, model: LoadedModel, images: Sequence[bytes], selection: Selection[Prediction], deadline: float
    ) -> Answer[Prediction]:
        times = Times()
        began_at = time.perf_counter()
        prepared = await asyncio.gather(
            *(_run(self._decoders, self._prepare, model.predictor, data, selection) for data in images)
        )
        times.decode_ms = _ms_since(began_at)
        views = Views([image for image in prepared if isinstance(image, Prepared)])
        finished: dict[int, ImageAnswer[Prediction]] = {}  # by identity: equal images are still two
        for batch in batches(views.tensors):
            outputs = await self._infer(
                model.predictor, [views.tensors[number] for number in batch], selection, deadline, times
            )
            whole = views.note(batch, outputs)
            began_at = time.perf_counter()
            answers = await asyncio.gather(
                *(_run(self._decoders, _finish, model.predictor, image, selection) for image in whole)
            )
            times.postprocess_ms += _ms_since(began_at)
            finished.update((id(image), answer) for image, answer in zip(whole, answers, strict=True))
        images_or_errors = [image if isinstance(image, ImageError) else finished[id(image)] for image in prepared]
        return Answer(model=model.source, images=images_or_errors, times=times)

    def _prepare(self, predictor: AnyPredictor, data: bytes, selection: Selection[Any]) -> Prepared | ImageError:
        """In the decode pool."""
        try:
            if len(data) > self._max_image_bytes:
                hint = "Send a smaller or more compressed image."
                msg = f"The image has {len(data)} bytes, and {self._max_image_bytes} are the most."
                raise ImageTooLarge(msg, hint=hint)
            image = decode_image(data, max_pixels=self._max_image_pixels)
            views = predictor.prepare(image, selection)
        except ImageError as error:
            return error
        return Prepared(width=image.shape[2], height=image.shape[1], views=views, outputs={})

    async def _infer(
        self,
        predictor: AnyPredictor,
        views: Sequence[Tensor],
        selection: Selection[Any],
        deadline: float,
        times: Times,
    ) -> list[Any]:
        queued_at = time.perf_counter()

        def in_lane() -> list[Any]:
            times.queue_ms += _ms_since(queued_at)
            began_at = time.perf_counter()
            try:
                return _infer(predictor, views, selection, deadline)
            finally:
                times.inference_ms += _ms_since(began_at)

        return await _run(self._lane, in_lane)


async def _run(pool: Executor, work: Callable[..., Result], *args: object) -> Result:
    return await asyncio.get_running_loop().run_in_executor(pool, work, *args)


async def _before(deadline: float, work: Awaitable[Result], timeout_s: float) -> Result:
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            return await work
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"The prediction was not ready within {timeout_s:g} s.", hint="Send fewer images at a time, or try later."
        ) from error


def _count_views(images: Sequence[bytes], selection: Selection[Any]) -> int:
    """What the request will cost, by the images' headers; one that is at fault gets its error when it is decoded."""
    views = 0
    for data in images:
        count = 1
        with suppress(ImageError):
            count = selection.count_views(*read_image_size(data))
        views += count
    return views


def _infer(predictor: AnyPredictor, views: Sequence[Tensor], selection: Selection[Any], deadline: float) -> list[Any]:
    """In the device's lane: nothing else computes there meanwhile. Past the deadline nobody waits for the rest."""
    if time.monotonic() > deadline:
        raise TimeoutError
    try:
        return predictor.predict_prepared(torch.stack(list(views)), selection)
    except torch.OutOfMemoryError as error:
        raise OutOfDeviceMemory(
            "The images do not fit into the device's memory.", hint="Send fewer at a time, or try later."
        ) from error


def _finish(predictor: AnyPredictor, image: Prepared, selection: Selection[Prediction]) -> ImageAnswer[Prediction]:
    outputs = [image.outputs[place] for place in range(len(image.views))]
    prediction = predictor.finish(outputs, width=image.width, height=image.height, selection=selection)
    image.outputs.clear()  # a batch's outputs are large: the next ones take their place
    return ImageAnswer(width=image.width, height=image.height, prediction=prediction)


def _check(model: LoadedModel, selection: Selection[Any]) -> None:
    """Raises WrongTask, UnknownCategory, ModelsError."""
    reference, predictor = model.source.reference, model.predictor
    if predictor.task != selection.task:
        verb = _ASKED_BY[predictor.task]
        raise WrongTask(
            f"{reference} is a model for {predictor.task}, not for {selection.task}.",
            hint=f"Ask it to {verb}: POST /v1/{verb}, or `fovea {verb}`.",
        )
    unknown = sorted(selection.categories.difference(predictor.categories))
    if unknown:
        known = predictor.categories
        shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
        raise UnknownCategory(f"{reference} has no category {', '.join(map(repr, unknown))}.", hint=f"It has {shown}.")
    predictor.check(selection)


def _draw(
    data: bytes, annotate: Callable[[Tensor], Tensor], image_format: Literal["png", "jpeg"], max_pixels: int
) -> bytes:
    return encode_image(annotate(decode_image(data, max_pixels=max_pixels)), image_format)


def _ms_since(began_at: float) -> float:
    return (time.perf_counter() - began_at) * 1000
