"""The lane of a device that another process has: views are written to shared memory, and wait over there.

They share batches with those of every other HTTP process, in the order of arrival and priority.
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
    """See Lane. To be used from the event loop of its connection; `place` from any thread."""

    def __init__(
        self,
        connection: EngineConnection,
        *,
        observers: Sequence[Observer] = (),
        after_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        """observers: hear of a batch that several HTTP processes shared by this one's views alone."""
        self._connection = connection
        self._observers = observers
        self._after_batch = after_batch
        self._waiting = 0
        self._urgent = 0  # of those, the interactive ones
        self._answered_at = 0.0  # or began to wait, if that is later
        self._results: defaultdict[LoadedModel, list[ViewResult]] = defaultdict(
            list
        )  # of the message that is being read
        connection.on_answers = self._tell

    @property
    def waiting(self) -> int:
        """Views that wait for the device, or are on it."""
        return self._waiting

    @property
    def busy_s(self) -> float:
        """How long interactive views have waited without an answer to any, or the engine has been at a long batch.

        Bulk views may be passed over by those of other processes for as long as there are any. From any thread.
        """
        unanswered_s = time.perf_counter() - self._answered_at if self._urgent else 0.0
        return max(unanswered_s, self._connection.long_s("batch"))

    def place(self, view: Tensor) -> Tensor:
        """The view in shared memory, which goes back when it is dropped here and there. Raises EngineFull."""
        placed = self._connection.arena.place(view)
        if placed is None:
            size_mib = self._connection.arena.size_bytes // 1024**2
            message = f"The images that wait already fill the {size_mib} MiB between this process and the engine."
            raise EngineFull(message, hint="Send them again in 1 s.", retry_after_s=1)
        return placed

    def submit(
        self, model: LoadedModel, view: Tensor, selection: Selection[Any], priority: Priority
    ) -> asyncio.Future[ViewResult]:
        """See Lane.submit. Raises EngineRestarting besides, if the engine died twice under the view."""
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
        """Whoever waits is cancelled."""
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
            queue_s=max(0.0, time.perf_counter() - since - inference_s),  # the way there and back is waiting too
            inference_s=inference_s,
        )
        self._results[model].append(result)
        return result

    def _tell(self) -> None:
        """The answers of one message are views of one batch, unless several ended in the same moment."""
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
