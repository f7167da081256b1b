"""A device's lane: views wait by model and size, and go through the network batch by batch.

Work-conserving: an idle device takes what is there at once, so a lone view never waits for company; while it is busy
the next batch grows, up to what measured best for its model. Nothing polls and nothing waits for a fixed time. Within a
priority the view that came first decides whose turn it is, so no model starves another.

Where a single core decodes and predicts, it is not idle while it decodes: both have turns in one thread, and a batch
grows while something as urgent is being decoded, for as long as the model's last batch took at most. That neither
interrupts the network nor runs it for one view when others are about to come.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, Literal

import torch
from torch import Tensor

from app.engine.decode_pool import DecodePool, Urgency
from app.engine.errors import OutOfDeviceMemory
from app.engine.loaded_models import LoadedModel
from app.engine.observer import Observer
from app.engine.thread_priority import stand_back
from models.backends.backend import BackendName, Precision
from models.predictor import AnyPredictor, Selection

Priority = Literal["interactive", "bulk"]
_PRIORITIES: Final[tuple[Priority, ...]] = ("interactive", "bulk")

_LARGE_OUTPUTS = 4  # that may wait to be finished; those of a segmentation network take 20 MB each


@dataclass(frozen=True, kw_only=True, slots=True)
class Ran:
    """What became of a view."""

    output: Any
    backend: BackendName
    precision: Precision
    queue_s: float
    inference_s: float  # of the batch it was in


@dataclass(eq=False, kw_only=True, slots=True)
class _Waiting:
    model: LoadedModel
    view: Tensor  # uint8 [C, h, w]
    selection: Selection[Any]
    priority: Priority
    done: asyncio.Future[Ran]
    number: int  # in the order of arrival
    since: float


_Line = tuple[Priority, int, torch.Size]  # of views that may share a batch: the middle one is the model's identity


class Lane:
    """One batch at a time on one device. To be used from one event loop; the network runs in a thread of its own."""

    def __init__(
        self,
        *,
        observers: Sequence[Observer] = (),
        after_batch: Callable[[int], None] = lambda _: None,
        shared: DecodePool | None = None,
    ) -> None:
        """after_batch: is told how many views went through, on the event loop.

        shared: the one thread that decodes, if the network is to have its turns there.
        """
        self._observers = observers
        self._after_batch = after_batch
        self._thread = None if shared else ThreadPoolExecutor(1, thread_name_prefix="infer", initializer=stand_back)
        self._shared = shared
        self._starts_soon = False
        self._is_put_off = False  # a result came since: its picture is on its way here
        if shared:
            shared.after_call = self._note_result
        self._lines: dict[_Line, deque[_Waiting]] = {}
        self._numbers = count()
        self._is_busy = False
        self._started_at = 0.0  # the batch that runs, or the last one
        self._idle_since = 0.0
        self._is_closed = False
        self._unfinished = 0  # large outputs that somebody still holds

    @property
    def waiting(self) -> int:
        """Views that wait for the device."""
        return sum(map(len, self._lines.values()))

    @property
    def busy_s(self) -> float:
        """How long the device has been at the batch that runs; 0 if none does. From any thread."""
        return time.perf_counter() - self._started_at if self._is_busy else 0.0

    def place(self, view: Tensor) -> Tensor:
        """The view itself: the device takes it from where it is."""
        return view

    def submit(
        self, model: LoadedModel, view: Tensor, selection: Selection[Any], priority: Priority
    ) -> asyncio.Future[Ran]:
        """The output of `view`, uint8 [C, h, w], when its turn has come; cancel it and its place is free.

        Raises OutOfDeviceMemory if the view does not even fit alone, and whatever the network raises.
        """
        done: asyncio.Future[Ran] = asyncio.get_running_loop().create_future()
        if self._is_closed:
            done.cancel()
            return done
        line: _Line = (priority, id(model), view.shape)
        waiting = _Waiting(
            model=model,
            view=view,
            selection=selection,
            priority=priority,
            done=done,
            number=next(self._numbers),
            since=time.perf_counter(),
        )
        self._lines.setdefault(line, deque()).append(waiting)
        done.add_done_callback(lambda done: self._leave(line, waiting) if done.cancelled() else None)
        if self._shared:
            self._shared.told_together = model.batch_size(view.shape)
            self._start_soon()
        else:
            self._start()
        return done

    def finished(self, model: LoadedModel, outputs: int) -> None:
        """So many outputs of the model have become predictions, or are not wanted any more."""
        if model.predictor.has_large_outputs:
            self._unfinished -= outputs
            self._start()

    def close(self) -> None:
        """Takes no more, and gives up what waits; what runs ends by itself."""
        self._is_closed = True
        for waiting in [waiting for line in self._lines.values() for waiting in line]:
            waiting.done.cancel()
        if self._thread:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _start_soon(self) -> None:
        """When all those whose pictures are decoded by now have brought them here: their turns are due already."""
        if self._starts_soon or not self._lines:
            return
        self._starts_soon, self._is_put_off = True, False
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._start_now)

    def _note_result(self) -> None:
        """Of the shared thread's, just before whoever waits for it hears of it."""
        self._is_put_off = True
        self._start_soon()

    def _start_now(self) -> None:
        self._starts_soon = False
        if self._is_put_off:
            self._start_soon()
        else:
            self._start()

    def _start(self) -> None:
        """Gives the device the next batch if it is idle and there is one."""
        if self._is_busy or self._is_closed:
            return
        batch = self._take()
        if not batch:
            return
        self._started_at = time.perf_counter()
        self._is_busy = True
        running: asyncio.Future[_Outcome]
        if self._shared:
            urgency: Urgency = "network" if batch[0].priority == "interactive" else "bulk network"
            running = self._shared.submit(urgency, _predict, batch)
        else:
            running = asyncio.get_running_loop().run_in_executor(self._thread, _predict, batch)
        running.add_done_callback(lambda done: self._end(batch, done))

    def _take(self) -> list[_Waiting]:
        lines = [line for line in self._lines if self._may_start(line)]
        if not lines:
            return []
        priority = min((line[0] for line in lines), key=_PRIORITIES.index)
        ready = [line for line in lines if line[0] == priority and not self._has_company_coming(line)]
        if not ready:
            return []
        chosen = min(ready, key=lambda line: self._lines[line][0].number)
        most = self._most(chosen)
        batch: list[_Waiting] = []
        for priority in _PRIORITIES:  # bulk fills what is left of an interactive batch
            line: _Line = (priority, *chosen[1:])
            queue = self._lines.get(line, deque())
            while queue and len(batch) < most:
                batch.append(queue.popleft())
            if not queue:
                self._lines.pop(line, None)
        if batch[0].model.predictor.has_large_outputs:
            self._unfinished += len(batch)
        return batch

    def _may_start(self, line: _Line) -> bool:
        return self._unfinished < _LARGE_OUTPUTS or not self._lines[line][0].model.predictor.has_large_outputs

    def _most(self, line: _Line) -> int:
        """Views that a batch of the line may have."""
        return self._lines[line][0].model.batch_size(line[2])

    def _has_company_coming(self, line: _Line) -> bool:
        """Whether the core is at something as urgent, which may be for this batch.

        It is waited for as long as the model's last batch took, at most.
        """
        if self._shared is None or len(self._lines[line]) >= self._most(line) or not self._shared.is_busy(line[0]):
            return False
        first = self._lines[line][0]
        return time.perf_counter() - max(self._idle_since, first.since) < first.model.batch_s

    def _leave(self, line: _Line, waiting: _Waiting) -> None:
        queue = self._lines.get(line, deque())
        if waiting in queue:
            queue.remove(waiting)
            if not queue:
                del self._lines[line]

    def _end(self, batch: list[_Waiting], running: asyncio.Future[_Outcome]) -> None:
        self._is_busy = False
        self._idle_since = time.perf_counter()
        if running.cancelled() or asyncio.get_running_loop().is_closed():
            for waiting in batch:
                waiting.done.cancel()
            return
        try:
            self._hand_out(batch, running.result())
        finally:  # whatever broke, the device goes on
            self._start()

    def _hand_out(self, batch: list[_Waiting], outcome: _Outcome) -> None:
        started_at, elapsed_s = outcome.started_at, outcome.elapsed_s
        model = batch[0].model
        model.batch_s = elapsed_s
        given_up = 0
        for waiting, output in zip(batch, outcome.outputs, strict=True):
            if waiting.done.cancelled():
                given_up += 1
            elif isinstance(output, Exception):
                given_up += 1
                waiting.done.set_exception(output)
            else:
                ran = Ran(
                    output=output,
                    backend=outcome.backend,
                    precision=outcome.precision,
                    queue_s=started_at - waiting.since,
                    inference_s=elapsed_s,
                )
                waiting.done.set_result(ran)
        if given_up and model.predictor.has_large_outputs:
            self._unfinished -= given_up
        self._after_batch(len(batch))
        waits = [started_at - waiting.since for waiting in batch]
        for observer in self._observers:
            observer.batch_predicted(model.source, backend=outcome.backend, queue_s=waits, inference_s=elapsed_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Outcome:
    outputs: list[Any]  # an output or an exception a view
    backend: BackendName
    precision: Precision
    started_at: float
    elapsed_s: float


def _predict(batch: Sequence[_Waiting]) -> _Outcome:
    """In the lane's thread. Raises nothing: one view's failure is not the others'."""
    predictor = batch[0].model.predictor
    backend = predictor.backend  # it may be replaced meanwhile
    started_at = time.perf_counter()
    outputs = _outputs(predictor, batch)
    return _Outcome(
        outputs=outputs,
        backend=backend.name,
        precision=backend.precision,
        started_at=started_at,
        elapsed_s=time.perf_counter() - started_at,
    )


def _outputs(predictor: AnyPredictor, batch: Sequence[_Waiting]) -> list[Any]:
    """Where memory does not suffice, halves are tried, down to one view."""
    try:
        views = stack([waiting.view for waiting in batch])
        outputs = list(predictor.predict_prepared(views, [waiting.selection for waiting in batch]))
        assert len(outputs) == len(batch), f"{len(outputs)} outputs for {len(batch)} views"
        return outputs
    except Exception as error:
        if not is_out_of_memory(error):
            return [error] * len(batch)
    if len(batch) == 1:
        hint = "Send a smaller image, or try later."
        return [OutOfDeviceMemory("The image does not fit into the device's memory.", hint=hint)]
    middle = len(batch) // 2
    return _outputs(predictor, batch[:middle]) + _outputs(predictor, batch[middle:])


def stack(views: Sequence[Tensor]) -> Tensor:
    """Views of one size as a batch, [B, C, h, w]; if some were decoded on the device, the others come there too."""
    device = next((view.device for view in views if view.device.type != "cpu"), views[0].device)
    return torch.stack([view.to(device) for view in views])


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device, or the machine, had no memory left. PyTorch has no class of its own for the CPU's."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
