"""The lane of a device that the engine process has. Views go there through shared memory.

In the engine process they share batches with the views of the other HTTP processes, in the order of priority and
arrival.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from app.engine.errors import EngineFull
from app.engine.lane import Priority, ViewResult
from app.engine.loaded_models import LoadedModel
from app.engine.observer import Observer
from app.engine.remote.arena import Bytes
from app.engine.remote.connection import EngineConnection
from app.engine.remote.remote_predictor import RemoteBackend
from app.engine.remote.values import pack_selection, unpack
from app.engine.remote.wire import Message
from models.predictor import Selection


class RemoteLane:
    """A Lane in another process. Use it from the event loop of its connection; `place` may run in any thread."""

    def __init__(
        self,
        connection: EngineConnection,
        *,
        observers: Sequence[Observer] = (),
        after_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        """observers: they count only this process's views of a batch that several HTTP processes share."""
        self._connection = connection
        self._observers = observers
        self._after_batch = after_batch
        self._waiting = 0
        self._urgent = 0  # the interactive ones among them
        self._answered_at = 0.0  # or the first view began to wait, if that is later
        # the results in the message that is being read
        self._results: defaultdict[LoadedModel, list[ViewResult]] = defaultdict(list)
        connection.on_answers = self._tell

    @property
    def waiting(self) -> int:
        """The number of views that wait for the device or are on it."""
        return self._waiting

    @property
    def busy_s(self) -> float:
        """Seconds since interactive views last got an answer, or the time of the current batch if that is longer.

        Bulk views do not count: interactive views of other processes may go first for any time. Any thread may ask.
        """
        unanswered_s = time.perf_counter() - self._answered_at if self._urgent else 0.0
        return max(unanswered_s, self._connection.long_s("batch"))

    def place(self, view: Tensor) -> Tensor:
        """Copies the view into shared memory, which is freed when both processes drop it. Raises EngineFull."""
        placed = self._connection.arena.place(view)
        if placed is None:
            size_mib = self._connection.arena.size_bytes // 1024**2
            message = f"The pending images fill the {size_mib} MiB that this process shares with the engine process."
            raise EngineFull(message, hint="Send them again in 1 s.", retry_after_s=1)
        return placed

    def submit(
        self, model: LoadedModel, view: Tensor, selection: Selection[Any], priority: Priority
    ) -> asyncio.Future[ViewResult]:
        """See Lane.submit. Also raises EngineRestarting, if the engine process died twice with this view."""
        offset = self._connection.arena.offset_of(view)
        if offset is None:
            view = self.place(view)
            offset = self._connection.arena.offset_of(view)
        message: Message = {
            "do": "predict",
            "digest": model.source.digest,
            "reference": model.source.reference,
            "at": offset,
            "shape": list(view.shape),
            "selection": pack_selection(selection),
            "priority": priority,
        }
        if not self._urgent:
            self._answered_at = time.perf_counter()
        self._waiting += 1
        self._urgent += priority == "interactive"
        read = partial(self._read, model, time.perf_counter())
        done = self._connection.ask(message, read, needs=view, unwanted=lambda _: self.finished(model, 1))
        done.add_done_callback(partial(self._leave, priority))
        return done

    def finished(self, model: LoadedModel, outputs: int) -> None:
        """See Lane.finished."""
        if model.predictor.has_large_outputs and outputs:
            self._connection.tell({"do": "finished", "digest": model.source.digest, "outputs": outputs})

    def close(self) -> None:
        """Closes the connection and cancels all pending views."""
        self._connection.close()

    def _leave(self, priority: Priority, done: asyncio.Future[Any]) -> None:
        if not done.cancelled():
            self._answered_at = time.perf_counter()
        self._waiting -= 1
        self._urgent -= priority == "interactive"
        if not self._waiting:
            self._connection.arena.trim()

    def _read(self, model: LoadedModel, since: float, answer: Message, memory: Bytes) -> ViewResult:
        inference_s: float = answer["inference_s"]
        backend = model.predictor.backend
        assert isinstance(backend, RemoteBackend)
        backend.name, backend.precision = answer["backend"], answer["precision"]
        result = ViewResult(
            output=unpack(answer["value"], memory),
            backend=backend.name,
            precision=backend.precision,
            queue_s=max(0.0, time.perf_counter() - since - inference_s),  # the transfer counts as waiting
            inference_s=inference_s,
        )
        self._results[model].append(result)
        return result

    def _tell(self) -> None:
        """Reports the answers of one message as one batch. They are one, unless several batches ended at once."""
        for model, views in self._results.items():
            self._after_batch(len(views))
            for observer in self._observers:
                observer.batch_predicted(
                    model.source,
                    backend=views[0].backend,
                    queue_s=[view.queue_s for view in views],
                    inference_s=max(view.inference_s for view in views),
                )
        self._results.clear()
