"""A device's lane: views wait by model and size, and go through the network batch by batch.

An idle device takes the views that are there at once, so a lone view never waits for others. While the device is busy
the next batch grows, up to the size that measured best for its model. Nothing polls, and nothing waits for a fixed
time. Within a priority, the view that came first decides which model is next, so no model starves another.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Final, Literal, TypeVar

import torch
from torch import Tensor

from app.engine.batch import BatchOutcome, run_batch
from app.engine.loaded_models import LoadedModel
from app.engine.observer import Observer
from app.engine.thread_priority import lower_priority
from models.backends.backend import BackendName
from models.precision import Precision
from models.predictor import Selection

Priority = Literal["interactive", "bulk"]
_PRIORITIES: Final[tuple[Priority, ...]] = ("interactive", "bulk")

_LARGE_OUTPUTS = 4  # large outputs that may wait to be finished; a segmentation network's take 20 MB each

_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewResult:
    """The network's output for a view, and how it was computed."""

    output: Any
    backend: BackendName
    precision: Precision
    queue_s: float
    inference_s: float  # duration of the batch


@dataclass(eq=False, kw_only=True, slots=True)
class _Waiting:
    """A view that waits for the device."""

    model: LoadedModel
    view: Tensor  # uint8 [C, h, w]
    selection: Selection[Any]
    priority: Priority
    done: asyncio.Future[ViewResult]
    number: int  # position in the order of arrival
    since: float


# Priority, identity of the model, size. Views may share a batch if they differ in nothing but priority.
QueueKey = tuple[Priority, int, torch.Size]


class Lane:
    """Runs one batch at a time on one device, in a thread. All methods must be called from one event loop."""

    def __init__(
        self,
        *,
        observers: Sequence[Observer] = (),
        after_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        """after_batch: called on the event loop after each batch, with its number of views."""
        self._observers = observers
        self._after_batch = after_batch
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="infer", initializer=lower_priority)
        self._queues: dict[QueueKey, deque[_Waiting]] = {}
        self._numbers = count()
        self._is_busy = False
        self._started_at = 0.0  # start of the batch that runs, or of the last one
        self._idle_since = 0.0
        self._is_closed = False
        self._unfinished = 0  # large outputs that still take memory

    @property
    def waiting(self) -> int:
        """Number of views that wait for the device."""
        return sum(map(len, self._queues.values()))

    @property
    def busy_s(self) -> float:
        """How long the current batch has been running; 0 if none is. May be read from any thread."""
        return time.perf_counter() - self._started_at if self._is_busy else 0.0

    def place(self, view: Tensor) -> Tensor:
        """The view itself: this lane's device reads it from where it is."""
        return view

    def submit(
        self, model: LoadedModel, view: Tensor, selection: Selection[Any], priority: Priority
    ) -> asyncio.Future[ViewResult]:
        """The future result of `view`, uint8 [C, h, w]. Cancelling it removes the view from its queue.

        Raises OutOfDeviceMemory if the view does not fit into memory even alone, and whatever the network raises.
        """
        done: asyncio.Future[ViewResult] = asyncio.get_running_loop().create_future()
        if self._is_closed:
            done.cancel()
            return done
        key: QueueKey = (priority, id(model), view.shape)
        waiting = _Waiting(
            model=model,
            view=view,
            selection=selection,
            priority=priority,
            done=done,
            number=next(self._numbers),
            since=time.perf_counter(),
        )
        self._queues.setdefault(key, deque()).append(waiting)
        done.add_done_callback(lambda done: self._leave(key, waiting) if done.cancelled() else None)
        self._start_soon()
        return done

    def finished(self, model: LoadedModel, outputs: int) -> None:
        """Called when `outputs` outputs of the model have become predictions, or are no longer wanted."""
        if model.predictor.has_large_outputs:
            self._unfinished -= outputs
            self._start_soon()

    def close(self) -> None:
        """Refuses new views and cancels those that wait; a batch that runs ends by itself."""
        self._is_closed = True
        for waiting in [waiting for queue in self._queues.values() for waiting in queue]:
            waiting.done.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _start_soon(self) -> None:
        """Called when a view has arrived, or the device can do more."""
        self._start()

    def _start(self) -> None:
        """Gives the device the next batch, if it is idle and there is one."""
        if self._is_busy or self._is_closed:
            return
        batch = self._take()
        if not batch:
            return
        self._started_at = time.perf_counter()
        self._is_busy = True
        predictor = batch[0].model.predictor
        views, selections = [waiting.view for waiting in batch], [waiting.selection for waiting in batch]
        running = self._run_in_thread(batch[0].priority, partial(run_batch, predictor, views, selections))
        running.add_done_callback(lambda done: self._end(batch, done))

    def _run_in_thread(self, priority: Priority, work: Callable[[], _Result]) -> asyncio.Future[_Result]:  # noqa: ARG002
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _take(self) -> list[_Waiting]:
        """Removes the views of the next batch from their queues."""
        keys = [key for key in self._queues if self._may_start(key)]
        if not keys:
            return []
        most_urgent = min((key[0] for key in keys), key=_PRIORITIES.index)
        ready = [key for key in keys if key[0] == most_urgent and not self._is_growing(key)]
        if not ready:
            return []
        chosen = min(ready, key=lambda key: self._queues[key][0].number)
        largest = self._largest_batch(chosen)
        batch: list[_Waiting] = []
        for priority in _PRIORITIES:  # bulk views fill the rest of an interactive batch
            key: QueueKey = (priority, *chosen[1:])
            queue = self._queues.get(key, deque())
            while queue and len(batch) < largest:
                batch.append(queue.popleft())
            if not queue:
                self._queues.pop(key, None)
        if batch[0].model.predictor.has_large_outputs:
            self._unfinished += len(batch)
        return batch

    def _may_start(self, key: QueueKey) -> bool:
        return self._unfinished < _LARGE_OUTPUTS or not self._queues[key][0].model.predictor.has_large_outputs

    def _is_growing(self, key: QueueKey) -> bool:  # noqa: ARG002 - for subclasses
        """Whether the batch of this queue waits for more views."""
        return False

    def _largest_batch(self, key: QueueKey) -> int:
        return self._queues[key][0].model.batch_size(key[2])

    def _leave(self, key: QueueKey, waiting: _Waiting) -> None:
        queue = self._queues.get(key, deque())
        if waiting in queue:
            queue.remove(waiting)
            if not queue:
                del self._queues[key]

    def _end(self, batch: list[_Waiting], running: asyncio.Future[BatchOutcome]) -> None:
        self._is_busy = False
        self._idle_since = time.perf_counter()
        if running.cancelled() or asyncio.get_running_loop().is_closed():
            for waiting in batch:
                waiting.done.cancel()
            return
        try:
            self._deliver(batch, running.result())
        finally:  # the device continues, even after a bug here
            self._start_soon()

    def _deliver(self, batch: list[_Waiting], outcome: BatchOutcome) -> None:
        started_at, elapsed_s = outcome.started_at, outcome.elapsed_s
        model = batch[0].model
        model.batch_s = elapsed_s
        dropped = 0
        for waiting, output in zip(batch, outcome.outputs, strict=True):
            if waiting.done.cancelled():
                dropped += 1
            elif isinstance(output, Exception):
                dropped += 1
                waiting.done.set_exception(output)
            else:
                result = ViewResult(
                    output=output,
                    backend=outcome.backend,
                    precision=outcome.precision,
                    queue_s=started_at - waiting.since,
                    inference_s=elapsed_s,
                )
                waiting.done.set_result(result)
        if dropped and model.predictor.has_large_outputs:
            self._unfinished -= dropped
        self._after_batch(len(batch))
        waits = [started_at - waiting.since for waiting in batch]
        for observer in self._observers:
            observer.batch_predicted(model.source, backend=outcome.backend, queue_s=waits, inference_s=elapsed_s)
