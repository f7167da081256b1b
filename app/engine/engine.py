"""The serving engine: images are admitted within bounds, decoded in threads, and predicted in batches.

The way of a request, for every task: admit or refuse it, find and load the model, decode and prepare in the decode
pool, wait in the device's lane with the images of other requests, finish. A decoded image is reduced to the network's
input at once. A request that ends early, by its deadline or a disconnect, frees its places. The engine knows no HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar

import torch
from torch import Tensor

from app.engine.admission import Admission
from app.engine.answers import Answer, Drawing, ImageAnswer, Times
from app.engine.decode_pool import DecodePool
from app.engine.device_access import MakeLane, ModelMemory
from app.engine.errors import (
    DeadlineExceeded,
    EngineFull,
    ModelLoading,
    OutOfDeviceMemory,
    UnknownCategory,
    WrongTask,
)
from app.engine.lane import Lane, Priority, ViewResult
from app.engine.loaded_models import LoadedModel
from app.engine.malloc_trim import LargePictures
from app.engine.model_source import ModelSource
from app.engine.observer import Observer, Outcome
from app.engine.turn_taking import TurnTakingLane, TurnTakingPool
from models.backends.backend import BackendName
from models.errors import ImageError, ImageTooLarge
from models.images.decode import DecodeJpeg, decode_image, encode_image, read_image_size
from models.manifest import Task
from models.precision import PrecisionChoice
from models.predictor import AnyPredictor, Selection

Prediction = TypeVar("Prediction")

_ASKED_BY: Final[dict[Task, str]] = {"classification": "classify", "detection": "detect", "segmentation": "segment"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Prepared:
    """A decoded image with its views."""

    width: int  # px, upright
    height: int
    views: list[Tensor]  # uint8 [C, h, w], the network's inputs
    elapsed_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Finished(Generic[Prediction]):
    """An image with its prediction."""

    answer: ImageAnswer[Prediction]
    views: list[ViewResult]
    decode_s: float
    finish_s: float


class Engine:
    """Predicts with the models of a registry and the catalogue. Used from one event loop."""

    def __init__(
        self,
        models: ModelMemory,
        *,
        decode_threads: int,
        max_pending_images: int,
        max_image_bytes: int,
        max_image_pixels: int,
        observers: Sequence[Observer] = (),
        make_lane: MakeLane | None = None,
        decode_jpeg: DecodeJpeg | None = None,
        has_one_core: bool = False,
    ) -> None:
        """max_pending_images: each tile of a large image counts as one.

        make_lane: creates the lane to `models` if they are in another process.
        decode_jpeg: decodes to the device of `models`, which must be in this process.
        has_one_core: decoding and the network share one core; `decode_threads` must be 1.
        """
        self.models = models
        self.decode_threads = decode_threads
        self._admission = Admission(max_pending_images)
        self._max_image_bytes = max_image_bytes
        self._max_image_pixels = max_image_pixels
        self._decode_jpeg = decode_jpeg
        self._observers = observers
        self._large_pictures = LargePictures()
        self._decoders = DecodePool(decode_threads)
        if make_lane is None and has_one_core:
            self._decoders = pool = TurnTakingPool()
            make_lane = partial(TurnTakingLane, pool)
        self._lane = (make_lane or Lane)(observers=observers, after_batch=self._admission.note)

    @property
    def pending_images(self) -> int:
        """Images that are accepted and not yet answered; tiles count too."""
        return self._admission.pending

    @property
    def max_pending_images(self) -> int:
        """Limit of pending images."""
        return self._admission.most

    @property
    def busy_s(self) -> float:
        """How long the current batch has been running; 0 if none is. May be read from any thread."""
        return self._lane.busy_s

    def check_room(self, priority: Priority, timeout_s: float) -> None:
        """Raises EngineFull if not even one image would be accepted. Called before a body is read."""
        self._admission.check(priority, timeout_s)

    def note_refusal(self, reference: str) -> None:
        """Tells the observers of a request for that model that was refused before it reached the engine."""
        self._tell_end(reference, self.models.known(reference), "rejected", 0, 0.0)

    async def predict(
        self,
        reference: str,
        images: Sequence[bytes | Tensor],
        selection: Selection[Prediction],
        *,
        timeout_s: float,
        priority: Priority = "interactive",
        precision: PrecisionChoice = "auto",
        drawing: Drawing[Prediction] | None = None,
    ) -> Answer[Prediction]:
        """The prediction for each image; an image that cannot be used has its error instead.

        images: encoded images, or decoded ones, uint8 [3, H, W].
        drawing: only for a single image; drawn before the deadline.
        Raises EngineFull, EngineRestarting, ModelLoading, DeadlineExceeded, OutOfDeviceMemory, WrongTask,
        UnknownCategory, ModelsError.
        """
        began_at = time.monotonic()
        model: LoadedModel | None = None
        outcome: Outcome = "failed"
        backend: BackendName | None = None
        views = 0
        try:
            count = len(images)
            if selection.is_tiled:  # reads headers only, and outside the decode pool, so that a refusal is fast
                count = await asyncio.to_thread(_count_views, images, selection)
            self._admission.admit(count, priority, timeout_s)
            views = count
            model = await self._model(reference, precision, began_at, timeout_s)
            _check(model, selection)
            with self._admission.working():
                answer = await self._predict(model, images, selection, priority, began_at, timeout_s, drawing)
                if precision == "float32" and answer.precision != precision:
                    # A faster backend was adopted in the meantime.
                    model = await self._model(reference, precision, began_at, timeout_s)
                    answer = await self._predict(model, images, selection, priority, began_at, timeout_s, drawing)
            outcome, backend = "ok", answer.backend
            return answer
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except EngineFull:
            outcome = "rejected"
            raise
        except (DeadlineExceeded, ModelLoading):
            outcome = "expired"
            raise
        finally:
            self._admission.leave(views)
            self._large_pictures.request_ended()
            source = model.source if model else self.models.known(reference)
            self._tell_end(reference, source, outcome, len(images), time.monotonic() - began_at, backend)

    async def close(self) -> None:
        """Refuses new work. What runs ends by itself."""
        self._decoders.close()
        self._large_pictures.close()
        self._lane.close()
        await self.models.close()

    async def _model(
        self, reference: str, precision: PrecisionChoice, began_at: float, timeout_s: float
    ) -> LoadedModel:
        ready = self.models.ready(reference, precision)
        if ready is not None:  # the usual case
            return ready
        try:
            async with asyncio.timeout(began_at + timeout_s - time.monotonic()):
                return await self.models.get(reference, precision)
        except TimeoutError as error:
            if not self.models.is_loading(reference, precision):
                raise _late(timeout_s) from error
            raise ModelLoading(
                f"{reference} is still being loaded.", hint="Send the request again: loading continues."
            ) from error

    async def _predict(
        self,
        model: LoadedModel,
        images: Sequence[bytes | Tensor],
        selection: Selection[Prediction],
        priority: Priority,
        began_at: float,
        timeout_s: float,
        drawing: Drawing[Prediction] | None,
    ) -> Answer[Prediction]:
        try:
            async with asyncio.timeout(began_at + timeout_s - time.monotonic()):
                if len(images) == 1:  # most requests: no further task is needed
                    entries = [await self._image(model, images[0], selection, priority)]
                else:
                    work = (self._image(model, image, selection, priority) for image in images)
                    entries = await _together(work)
                drawn: bytes | None = None
                if drawing is not None and isinstance(entries[0], _Finished):
                    prediction = entries[0].answer.prediction
                    drawn = await self._decoders.run(priority, self._draw, images[0], prediction, drawing)
        except TimeoutError as error:
            raise _late(timeout_s) from error
        return _answer(model, entries, drawn)

    async def _image(
        self,
        model: LoadedModel,
        image: bytes | Tensor,
        selection: Selection[Prediction],
        priority: Priority,
    ) -> _Finished[Prediction] | ImageError | OutOfDeviceMemory:
        predictor = model.predictor
        prepared = await self._decoders.run(priority, self._prepare, predictor, image, selection, may_be_delayed=True)
        if isinstance(prepared, ImageError):
            return prepared
        waiting = [self._lane.submit(model, view, selection, priority) for view in prepared.views]
        try:
            results = [await result for result in waiting]
            began_at = time.perf_counter()
            if predictor.finishes_quickly:
                answer = _finish(predictor, prepared, results, selection)
            else:
                answer = await self._decoders.run("finish", _finish, predictor, prepared, results, selection)
        except OutOfDeviceMemory as error:
            return error
        finally:
            self._leave_lane(model, waiting)
        elapsed_s = time.perf_counter() - began_at
        for observer in self._observers:
            observer.image_predicted(
                model.source, backend=results[0].backend, decode_s=prepared.elapsed_s, finish_s=elapsed_s
            )
        return _Finished(answer=answer, views=results, decode_s=prepared.elapsed_s, finish_s=elapsed_s)

    def _leave_lane(self, model: LoadedModel, waiting: list[asyncio.Future[ViewResult]]) -> None:
        """Tells the lane that the outputs are used, and cancels views that still wait."""
        outputs = 0
        for view in waiting:
            if not view.done():
                view.cancel()
            elif not view.cancelled() and view.exception() is None:
                outputs += 1
        self._lane.finished(model, outputs)

    def _prepare(
        self, predictor: AnyPredictor, image: bytes | Tensor, selection: Selection[Any]
    ) -> _Prepared | ImageError:
        """Decodes an image and makes its views, in the decode pool. Raises EngineFull."""
        began_at = time.perf_counter()
        try:
            pixels = image if isinstance(image, Tensor) else self._decode(image, self._decode_jpeg)
            try:
                views = predictor.prepare(pixels, selection)
            except torch.OutOfMemoryError:  # on a GPU that decoded the image
                views = predictor.prepare(pixels.cpu(), selection)
            views = [self._lane.place(view) for view in views]
        except ImageError as error:
            return error
        elapsed_s = time.perf_counter() - began_at
        return _Prepared(width=pixels.shape[2], height=pixels.shape[1], views=views, elapsed_s=elapsed_s)

    def _draw(self, image: bytes | Tensor, prediction: Prediction, drawing: Drawing[Prediction]) -> bytes:
        """Draws the prediction on the image, in the decode pool. Raises ImageError."""
        pixels = image if isinstance(image, Tensor) else self._decode(image)
        return encode_image(drawing.annotate(pixels, prediction, drawing.fonts), drawing.image_format)

    def _decode(self, data: bytes, decode_jpeg: DecodeJpeg | None = None) -> Tensor:
        if len(data) > self._max_image_bytes:
            hint = "Send a smaller or more compressed image."
            raise ImageTooLarge(
                f"The image has {len(data)} bytes, and the limit is {self._max_image_bytes}.", hint=hint
            )
        pixels = decode_image(data, max_pixels=self._max_image_pixels, decode_jpeg=decode_jpeg)
        self._large_pictures.note(pixels.shape[1] * pixels.shape[2])
        return pixels

    def _tell_end(
        self,
        reference: str,
        source: ModelSource | None,
        outcome: Outcome,
        images: int,
        seconds: float,
        backend: BackendName | None = None,
    ) -> None:
        for observer in self._observers:
            observer.request_ended(reference, source, outcome=outcome, images=images, seconds=seconds, backend=backend)


def _late(timeout_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"The prediction was not ready within {timeout_s:g} s.", hint="Send fewer images at a time, or try later."
    )


async def _together(work: Any) -> list[Any]:
    """All results in order. An error or a cancellation cancels the others."""
    tasks = [asyncio.create_task(part) for part in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


def _count_views(images: Sequence[bytes | Tensor], selection: Selection[Any]) -> int:
    """The number of views, from the images' headers. A broken image counts one and fails when it is decoded."""
    views = 0
    for image in images:
        count = 1
        with suppress(ImageError):
            size = (image.shape[2], image.shape[1]) if isinstance(image, Tensor) else read_image_size(image)
            count = selection.count_views(*size)
        views += count
    return views


def _finish(
    predictor: AnyPredictor, image: _Prepared, views: Sequence[ViewResult], selection: Selection[Prediction]
) -> ImageAnswer[Prediction]:
    outputs = [view.output for view in views]
    prediction = predictor.finish(outputs, width=image.width, height=image.height, selection=selection)
    return ImageAnswer(width=image.width, height=image.height, prediction=prediction)


def _answer(
    model: LoadedModel,
    entries: Sequence[_Finished[Prediction] | ImageError | OutOfDeviceMemory],
    drawn: bytes | None,
) -> Answer[Prediction]:
    finished = [entry for entry in entries if isinstance(entry, _Finished)]
    views = [view for entry in finished for view in entry.views]
    times = Times(
        decode_ms=1000 * max((entry.decode_s for entry in finished), default=0.0),
        queue_ms=1000 * max((view.queue_s for view in views), default=0.0),
        inference_ms=1000 * max((view.inference_s for view in views), default=0.0),
        postprocess_ms=1000 * max((entry.finish_s for entry in finished), default=0.0),
    )
    backend = model.predictor.backend
    return Answer(
        model=model.source,
        backend=views[0].backend if views else backend.name,
        precision=next((view.precision for view in views if view.precision != "float32"), "float32")
        if views
        else backend.precision,
        images=[entry.answer if isinstance(entry, _Finished) else entry for entry in entries],
        times=times,
        drawn=drawn,
    )


def _check(model: LoadedModel, selection: Selection[Any]) -> None:
    """Raises WrongTask, UnknownCategory, ModelsError."""
    reference, predictor = model.source.reference, model.predictor
    if predictor.task != selection.task:
        verb = _ASKED_BY[predictor.task]
        raise WrongTask(
            f"{reference} is a model for {predictor.task}, not for {selection.task}.",
            hint=f"Use POST /v1/{verb}, or `fovea {verb}`.",
        )
    unknown = sorted(selection.categories.difference(predictor.categories))
    if unknown:
        known = predictor.categories
        shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
        raise UnknownCategory(f"{reference} has no category {', '.join(map(repr, unknown))}.", hint=f"It has {shown}.")
    predictor.check(selection)
