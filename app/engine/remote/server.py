"""The server of the engine process. It has the models and the lane of a device, and serves the HTTP processes.

Each HTTP process has a session. When its connection ends, for whatever reason, the session cancels the pending requests
and frees their memory.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from math import prod
from typing import Any, Final

import numpy as np
import torch

from app.engine.lane import Lane, ViewResult
from app.engine.loaded_models import EXACT, LoadedModel, LoadedModels
from app.engine.remote.arena import Arena, Bytes, PeerArena
from app.engine.remote.greeting import exchange_arenas
from app.engine.remote.remote_predictor import describe_predictor
from app.engine.remote.values import ALIGNED_TO, Packed, pack_error, unpack_selection
from app.engine.remote.wire import Message, Wire
from models.errors import UnknownVersion
from models.precision import PrecisionChoice

log = logging.getLogger(__name__)

_INLINE_BYTES: Final = 64 * 1024  # an output that is larger goes through shared memory
_GREETING_S: Final = 10.0
_LONG_S: Final = 5.0  # HTTP processes get a report of batches and loads that take longer
_LOOKS_EVERY_S: Final = 1.0


class EngineServer:
    """Serves the HTTP processes that connect. Use it from one event loop."""

    def __init__(self, models: LoadedModels, lane: Lane, *, arena_bytes: int) -> None:
        """arena_bytes: shared memory for the large outputs of a session; what does not fit goes through the socket."""
        self._models = models
        self._lane = lane
        self._arena_bytes = arena_bytes
        self._sessions: set[_Session] = set()
        self._greeting: set[asyncio.Task[None]] = set()
        models.on_change = self._tell_models

    async def serve(self, listener: socket.socket) -> None:
        """Serves until it is cancelled."""
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        telling = asyncio.create_task(self._tell_what_takes_long(), name="tell what takes long")
        try:
            while True:
                link, _ = await loop.sock_accept(listener)
                task = asyncio.create_task(self._greet(link))
                self._greeting.add(task)
                task.add_done_callback(self._greeting.discard)
        finally:
            for task in (telling, *self._greeting):
                task.cancel()
            for session in list(self._sessions):
                session.wire.close()

    async def _tell_what_takes_long(self) -> None:
        """Tells the HTTP processes of long batches and loads, which they cannot see."""
        was_long = False
        while True:
            await asyncio.sleep(_LOOKS_EVERY_S)
            taking_s = {"batch": self._lane.busy_s, "load": self._models.loading_s}
            long = {what: seconds for what, seconds in taking_s.items() if seconds > _LONG_S}
            if long or was_long:
                for session in self._sessions:
                    session.wire.send({"long": long})
            was_long = bool(long)

    async def _greet(self, link: socket.socket) -> None:
        arena = Arena(self._arena_bytes)
        try:
            link.setblocking(False)
            async with asyncio.timeout(_GREETING_S):
                views = PeerArena(await exchange_arenas(link, arena.descriptor))
        except (OSError, TimeoutError) as error:
            log.warning("a connection was refused: %s", str(error) or "the other end sent nothing in time")
            arena.close()
            link.close()
            return
        session = _Session(self._models, self._lane, views=views, outputs=arena, on_end=self._sessions.discard)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: session.wire, sock=link)
        if not session.is_over:
            self._sessions.add(session)
            session.tell_models()

    def _tell_models(self) -> None:
        for session in self._sessions:
            session.tell_models()


class _Session:
    """The pending requests of one HTTP process, and the memory that it holds."""

    def __init__(
        self,
        models: LoadedModels,
        lane: Lane,
        *,
        views: PeerArena,
        outputs: Arena,
        on_end: Callable[[_Session], None],
    ) -> None:
        self._models = models
        self._lane = lane
        self._views = views
        self._outputs = outputs
        self._on_end = on_end
        self.wire = Wire(self._on_message, self._end)
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._looked_at: dict[int, weakref.ref[Bytes]] = {}  # the memory of views, by request
        # by digest: the model of every large output that is not finished, the oldest first.
        # A model that was evicted and loaded again is another object with the same digest.
        self._held: defaultdict[str, deque[LoadedModel]] = defaultdict(deque)
        self._described: set[str] = set()  # digests of models that the other end knows
        self.is_over = False
        self._answers: list[Message] = []
        self._carried = bytearray()

    def tell_models(self) -> None:
        """Sends the list of the models in memory."""
        self._send_answers()  # the other end must read descriptions in the order in which they were made
        loaded = self._models.all()
        self._described &= {model.source.digest for model in loaded}
        entries = [self._entry(model) for model in loaded]
        told = {"models": entries, "budget_bytes": self._models.budget_bytes, "failing_s": self._models.failing_s()}
        self.wire.send(told)

    def _on_message(self, message: Message, _: bytearray) -> None:
        match message["do"]:
            case "predict":
                self._predict(message)
            case "cancel":
                if (asked := self._asked.get(message["id"])) is not None:
                    asked.cancel()
            case "finished":
                self._finish(message["digest"], message["outputs"])
            case "free":
                self._outputs.free(message["slot"])
                self._outputs.trim()
            case "forget_lookups":
                self._models.forget_lookups()
            case "get":
                self._answer_later(message["id"], self._models.get(message["reference"], message["precision"]))
            case "load":
                self._answer_later(message["id"], self._models.load(message["reference"]))
            case "load_beside":
                self._answer_later(message["id"], self._models.load_beside(message["name"], message["version"]))
            case "unload":
                self._answer_later(message["id"], self._models.unload(message["reference"]))

    def _answer_later(self, number: int, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._asked[number] = task
        task.add_done_callback(partial(self._answer_value, number))

    def _answer_value(self, number: int, done: asyncio.Future[Any]) -> None:
        del self._asked[number]
        if done.cancelled():
            self._answer({"id": number})
        elif (error := done.exception()) is not None:
            self._answer_error(number, error)
        else:
            value = done.result()
            self._answer({"id": number, "value": self._entry(value) if isinstance(value, LoadedModel) else value})

    def _predict(self, message: Message) -> None:
        model = self._models.find(message["digest"])
        if model is not None:
            self._submit(message, model)
            return
        # it was evicted after the lookup, or this engine process is new
        precision: PrecisionChoice = "float32" if message["digest"].endswith(EXACT) else "auto"
        loading = asyncio.create_task(self._models.get(message["reference"], precision))
        self._asked[message["id"]] = loading
        loading.add_done_callback(partial(self._submit_loaded, message))

    def _submit_loaded(self, message: Message, loading: asyncio.Future[LoadedModel]) -> None:
        if self.is_over or loading.cancelled() or loading.exception() is not None:
            self._answer_value(message["id"], loading)
            return
        model = loading.result()
        if model.source.digest.removesuffix(EXACT) == message["digest"].removesuffix(EXACT):
            self._submit(message, model)
            return
        del self._asked[message["id"]]
        gone = UnknownVersion(f"{message['reference']} was replaced during the request.", hint="Send it again.")
        self._answer_error(message["id"], gone)

    def _submit(self, message: Message, model: LoadedModel) -> None:
        number, shape = message["id"], message["shape"]
        memory = self._views.slot(message["at"], prod(shape))
        view = torch.from_numpy(memory).view(shape)
        result = self._lane.submit(model, view, unpack_selection(message["selection"]), message["priority"])
        self._asked[number] = result
        self._looked_at[number] = weakref.ref(memory)
        result.add_done_callback(partial(self._answer_view, number, message["digest"], model))

    def _answer_view(self, number: int, digest: str, model: LoadedModel, done: asyncio.Future[ViewResult]) -> None:
        del self._asked[number]
        memory = self._looked_at.pop(number)
        if done.cancelled():
            self._answer_when_gone(number, memory())
        elif (error := done.exception()) is not None:
            self._answer_error(number, error)
        else:
            self._answer_output(number, digest, model, done.result())

    def _answer_when_gone(self, number: int, memory: Bytes | None) -> None:
        """Answers a cancelled request once its view is no longer read: it may still be in a batch."""
        if memory is None:
            self._answer({"id": number})
        else:
            tell = partial(asyncio.get_running_loop().call_soon_threadsafe, self._answer, {"id": number})
            weakref.finalize(memory, _unless_closed, tell).atexit = False

    def _answer_output(self, number: int, digest: str, model: LoadedModel, result: ViewResult) -> None:
        if self.is_over:
            self._lane.finished(model, 1)
            return
        try:
            packed = Packed(result.output)
        except Exception as error:  # a bug: without this the caller and the lane would wait for ever
            self._lane.finished(model, 1)
            self._answer_error(number, error)
            return
        if model.predictor.has_large_outputs:
            self._held[digest].append(model)
        answer: Message = {
            "id": number,
            "value": packed.structure,
            "bytes": packed.size_bytes,
            "backend": result.backend,
            "precision": result.precision,
            "inference_s": result.inference_s,
        }
        slot = self._outputs.allocate(packed.size_bytes) if packed.size_bytes > _INLINE_BYTES else None
        if slot is not None:
            answer["slot"] = slot
            packed.write(self._outputs.slot(slot, packed.size_bytes))
        elif packed.size_bytes:
            answer["carried_at"] = self._carry(packed)
        self._answer(answer)

    def _carry(self, packed: Packed) -> int:
        start = len(self._carried)
        assert start % ALIGNED_TO == 0
        memory = np.empty(packed.size_bytes, np.uint8)
        packed.write(memory)
        self._carried += memory.data
        return start

    def _answer_error(self, number: int, error: BaseException) -> None:
        self._answer({"id": number, "error": pack_error(error)})

    def _answer(self, answer: Message) -> None:
        """Adds an answer to the next message. The views of a batch end together, so one message carries them."""
        if not self._answers:
            asyncio.get_running_loop().call_soon(self._send_answers)
        self._answers.append(answer)

    def _send_answers(self) -> None:
        answers, carried = self._answers, self._carried
        self._answers, self._carried = [], bytearray()
        if answers:
            self.wire.send({"answers": answers}, carried)

    def _finish(self, digest: str, outputs: int) -> None:
        held = self._held.pop(digest, deque())
        for _ in range(min(outputs, len(held))):
            self._lane.finished(held.popleft(), 1)
        if held:
            self._held[digest] = held

    def _entry(self, model: LoadedModel) -> Message:
        """Returns a model's entry for `RemoteModels`; the first one carries its description."""
        source, backend = model.source, model.predictor.backend
        entry: Message = {
            "digest": source.digest,
            "best_batch": model.best_batch,
            "is_pinned": model.is_pinned,
            "loaded_at": model.loaded_at.isoformat(),
            "last_used_at": model.last_used_at.isoformat(),
            "backend": backend.name,
            "precision": backend.precision,
            "size_bytes": backend.size_bytes,
        }
        if source.digest not in self._described:
            self._described.add(source.digest)
            entry["description"] = {
                "name": source.name,
                "version": source.version,
                "architecture": source.architecture,
                "file_bytes": source.size_bytes,
                "predictor": describe_predictor(model),
            }
        return entry

    def _end(self) -> None:
        """Ends the session, because the connection has ended."""
        self.is_over = True
        for asked in list(self._asked.values()):
            asked.cancel()
        for held in self._held.values():
            for model in held:
                self._lane.finished(model, 1)
        self._held.clear()
        self._outputs.close()
        self._on_end(self)


def _unless_closed(tell: Any) -> None:
    with suppress(RuntimeError):  # the loop is closed: the process ends
        tell()
