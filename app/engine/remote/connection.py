"""The connection from an HTTP process to the engine process. Every request on it gets an answer or an error.

When the engine dies, the connection sends the pending requests once more, to the next engine process. A request that is
lost twice, or waits too long for an engine, raises EngineRestarting. So nothing hangs, and a request that kills the
engine kills it twice at most.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from app.engine.errors import EngineRestarting
from app.engine.remote.arena import Arena, Bytes, PeerArena
from app.engine.remote.greeting import exchange_arenas
from app.engine.remote.values import unpack_error
from app.engine.remote.wire import Message, Wire

log = logging.getLogger(__name__)

_MOST_TRIES: Final = 2
_PATIENCE_S = 30.0  # that requests wait for a new engine process: importing torch takes 3 to 15 s
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0  # between attempts to connect
_START_S = 120.0  # for the first engine process, including the import of torch and the start of the device
_RETRY_AFTER_S = 2

Read = Callable[[Message, Bytes], Any]


@dataclass(eq=False, kw_only=True, slots=True)
class _Asked:
    """A pending request. It stays until the engine has answered, even if the caller has been cancelled."""

    message: Message
    read: Read
    unwanted: Callable[[Message], object]
    needs: object  # memory that the engine may be reading
    done: asyncio.Future[Any]
    tries: int = 0


class EngineConnection:
    """The connection of one HTTP process. Use it from one event loop."""

    def __init__(self, path: Path, *, arena_bytes: int, patience_s: float = _PATIENCE_S) -> None:
        """path: the engine's socket. arena_bytes: memory for all pending views together."""
        self.arena = Arena(arena_bytes)
        self._path = path
        self._patience_s = patience_s
        self._asked: dict[int, _Asked] = {}
        self._numbers = count()
        self._wire: Wire | None = None
        self._outputs: PeerArena | None = None
        self._long_since: dict[str, float] = {}  # replaced as a whole, for readers in other threads
        self._keeping: asyncio.Task[None] | None = None
        self._giving_up: asyncio.TimerHandle | None = None
        self._has_given_up = False
        self._is_closed = False
        self._greeted = asyncio.Event()
        self.on_models: Callable[[Message], None] = lambda _: None  # the engine tells which models it has in memory
        self.on_answers: Callable[[], None] = lambda: None  # a message with answers was read
        self.on_lost: Callable[[], None] = lambda: None

    @property
    def is_open(self) -> bool:
        """True while an engine process is connected."""
        return self._wire is not None

    def long_s(self, what: Literal["batch", "load"]) -> float:
        """Returns the seconds that the engine has spent on one batch or load, or 0 if few. Any thread may ask."""
        since = self._long_since.get(what)
        return 0.0 if since is None else time.monotonic() - since

    async def open(self, *, timeout_s: float = _START_S) -> None:
        """Waits for the engine. Raises EngineRestarting if there is none in time."""
        self._keeping = asyncio.create_task(self._keep(), name="engine connection")
        try:
            async with asyncio.timeout(timeout_s):
                await self._greeted.wait()
        except TimeoutError as error:
            self.close()
            raise EngineRestarting(f"No engine process answers at {self._path} within {timeout_s:g} s.") from error

    def ask(
        self,
        message: Message,
        read: Read,
        *,
        needs: object = None,
        unwanted: Callable[[Message], object] = lambda _: None,
    ) -> asyncio.Future[Any]:
        """Sends a request. The future gives what `read` returns for the answer; cancelling it cancels the request.

        needs: an object to keep until the engine has answered. unwanted: called instead of `read` after a cancel.
        The future raises EngineRestarting, and what the engine raises.
        """
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._has_given_up:
            done.set_exception(_restarting())
            return done
        number = next(self._numbers)
        asked = _Asked(message={**message, "id": number}, read=read, unwanted=unwanted, needs=needs, done=done)
        self._asked[number] = asked
        done.add_done_callback(partial(self._withdraw, number))
        self._send(asked)
        return done

    def tell(self, message: Message) -> None:
        """Sends a message without an answer. A new engine process does not need it, so it is not repeated."""
        if self._wire is not None:
            self._wire.send(message)

    def close(self) -> None:
        """Closes the connection and cancels all pending requests."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._keeping is not None:
            self._keeping.cancel()
        if self._giving_up is not None:
            self._giving_up.cancel()
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()
        for asked in self._asked.values():
            asked.done.cancel()
        self._asked.clear()
        self.arena.close()

    def _send(self, asked: _Asked) -> None:
        if self._wire is not None:
            asked.tries += 1
            self._wire.send(asked.message)

    def _withdraw(self, number: int, done: asyncio.Future[Any]) -> None:
        if not done.cancelled():
            return
        if self._wire is not None:
            # the request stays in `_asked`: the engine may still read its memory
            self._wire.send({"do": "cancel", "id": number})
        else:
            self._asked.pop(number, None)

    async def _keep(self) -> None:
        """Connects, and connects again whenever the connection is lost."""
        pause_s = _FIRST_PAUSE_S
        self._start_giving_up()
        while True:
            lost = asyncio.Event()
            try:
                await self._connect(lost)
            except OSError as error:
                log.debug("the engine process cannot be reached: %s", error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                continue
            pause_s = _FIRST_PAUSE_S
            await lost.wait()

    async def _connect(self, lost: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.setblocking(False)
            await loop.sock_connect(link, str(self._path))
            outputs = PeerArena(await exchange_arenas(link, self.arena.descriptor))
            wire = Wire(self._on_message, lambda: self._lose(lost))
            await loop.create_unix_connection(lambda: wire, sock=link)
        except BaseException:
            link.close()
            raise
        if lost.is_set():
            msg = "the engine process died while it was greeted"
            raise ConnectionResetError(msg)
        self._wire, self._outputs = wire, outputs
        if self._giving_up is not None:
            self._giving_up.cancel()
        self._has_given_up = False
        self._greeted.set()
        for asked in list(self._asked.values()):
            self._send(asked)

    def _lose(self, lost: asyncio.Event) -> None:
        lost.set()
        if self._wire is None:  # `close` did this
            return
        self._wire = None
        self._long_since = {}
        self.on_lost()
        log.warning("the engine process has ended; %d request(s) to it were pending", len(self._asked))
        for number, asked in list(self._asked.items()):
            if asked.done.done():
                del self._asked[number]
            elif asked.tries >= _MOST_TRIES:
                del self._asked[number]
                asked.done.set_exception(_restarting())
        self._start_giving_up()

    def _start_giving_up(self) -> None:
        self._giving_up = asyncio.get_running_loop().call_later(self._patience_s, self._give_up)

    def _give_up(self) -> None:
        self._has_given_up = True
        asked, self._asked = self._asked, {}
        for one in asked.values():
            if not one.done.done():
                one.done.set_exception(_restarting())

    def _on_message(self, message: Message, carried: bytearray) -> None:
        if "models" in message:
            self.on_models(message)
            return
        if "long" in message:
            now = time.monotonic()
            self._long_since = {what: now - seconds for what, seconds in message["long"].items()}
            return
        for answer in message["answers"]:
            asked = self._asked.pop(answer["id"], None)
            if asked is not None:
                self._answer(asked, answer, carried)
        self.on_answers()

    def _answer(self, asked: _Asked, answer: Message, carried: bytearray) -> None:
        if "error" in answer:
            if not asked.done.done():
                asked.done.set_exception(unpack_error(answer["error"]))
        elif "value" in answer:
            memory = self._memory_of(answer, carried)
            if asked.done.done():
                asked.unwanted(answer)
                return
            try:
                asked.done.set_result(asked.read(answer, memory))
            except Exception as error:  # a bug in `read`: without this the caller would wait for ever
                asked.done.set_exception(error)

    def _memory_of(self, answer: Message, carried: bytearray) -> Bytes:
        size_bytes = answer.get("bytes", 0)
        if not size_bytes:
            return np.empty(0, np.uint8)
        if "carried_at" in answer:
            return np.frombuffer(carried, np.uint8, size_bytes, answer["carried_at"])
        assert self._outputs is not None
        memory = self._outputs.slot(answer["slot"], size_bytes)
        # PyTorch keeps `memory` while a tensor uses it
        giving_back = weakref.finalize(memory, _give_back, asyncio.get_running_loop(), self._wire, answer["slot"])
        giving_back.atexit = False
        return memory


def _give_back(loop: asyncio.AbstractEventLoop, wire: Wire | None, slot: int) -> None:
    """Frees the slot. It runs in the thread that drops the last tensor in the slot."""
    if wire is not None:
        with suppress(RuntimeError):  # the loop is closed: the process ends
            loop.call_soon_threadsafe(wire.send, {"do": "free", "slot": slot})


def _restarting() -> EngineRestarting:
    return EngineRestarting(
        "The engine process ended during the request and is being started again.",
        hint=f"Send the request again in {_RETRY_AFTER_S} s.",
        retry_after_s=_RETRY_AFTER_S,
    )
