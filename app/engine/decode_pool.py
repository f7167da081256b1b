"""The threads that decode images and finish predictions: the most urgent call first, then in the order of arrival.

Every call goes into the queue of its urgency and submits one `_take_turn` to the executor. A free thread then takes the
most urgent call itself, so it does not wait for the event loop between two calls. No lock is needed besides the
executor's, because adding to a deque and taking from it are atomic.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Final, Literal, TypeVar

from app.engine.thread_priority import lower_priority

# Most urgent first. The network runs in this pool only where one core does everything: see app.engine.turn_taking.
Urgency = Literal["finish", "network", "interactive", "bulk network", "bulk"]
URGENCIES: Final[tuple[Urgency, ...]] = ("finish", "network", "interactive", "bulk network", "bulk")

Result = TypeVar("Result")


class Call:
    """A call to a function, until the event loop has its result."""

    __slots__ = ("began_at", "done", "ended_at", "error", "loop", "may_be_delayed", "result", "urgency", "work")

    def __init__(self, urgency: Urgency, work: Callable[[], Any], *, may_be_delayed: bool) -> None:
        self.urgency: Urgency = urgency
        self.work: Callable[[], Any] | None = work  # None: a thread has taken it, or the caller was cancelled
        self.may_be_delayed = may_be_delayed
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[Any] = self.loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None
        self.began_at = self.ended_at = 0.0


class DecodePool:
    """Runs calls in threads. All of its methods must be called from one event loop."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode", initializer=lower_priority)
        self._queues: dict[Urgency, deque[Call]] = {urgency: deque() for urgency in URGENCIES}
        self._ended: deque[Call] = deque()  # calls whose results the event loop has not read yet
        self._is_loop_woken = False  # the event loop will read `_ended` soon

    @property
    def waiting(self) -> int:
        """Calls that no thread has taken yet, including cancelled ones."""
        return sum(map(len, self._queues.values()))

    async def run(
        self, urgency: Urgency, work: Callable[..., Result], *args: object, may_be_delayed: bool = False
    ) -> Result:
        """What `work` returns or raises. If the caller is cancelled before a thread takes the call, it never runs.

        may_be_delayed: the caller can do little with this result before it has those of the calls behind it. Only a
        pool that shares its core with the network delays results.
        """
        call = self._enqueue(urgency, work, args, may_be_delayed=may_be_delayed)
        try:
            result: Result = await call.done
        except asyncio.CancelledError:
            call.work = None  # releases the image now; a thread skips the call later
            raise
        return result

    def close(self) -> None:
        """Refuses new calls and cancels those that wait; a call that runs ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        while (call := self._next()) is not None:
            call.done.cancel()
        self._settle()  # after the queues are empty: from now on no result is delayed

    def _enqueue(
        self, urgency: Urgency, work: Callable[..., Any], args: tuple[object, ...], *, may_be_delayed: bool = False
    ) -> Call:
        call = Call(urgency, partial(work, *args), may_be_delayed=may_be_delayed)
        self._queues[urgency].append(call)
        self._threads.submit(self._take_turn)
        return call

    def _next(self) -> Call | None:
        for queue in self._queues.values():
            with suppress(IndexError):
                return queue.popleft()
        return None

    def _take_turn(self) -> None:
        """Runs the most urgent call, in a thread. The executor has one turn per call, so none is left behind."""
        call = self._next()
        if call is None:  # the pool was closed
            return
        work, call.work = call.work, None
        call.began_at = time.perf_counter()
        if work is not None:
            try:
                call.result = work()
            except BaseException as error:  # it is raised again where the call is awaited
                call.error = error
        del work
        call.ended_at = time.perf_counter()
        self._ended.append(call)
        if not self._is_loop_woken and not self._is_delayed(call):
            self._is_loop_woken = True
            with suppress(RuntimeError):  # the event loop is closed: nobody awaits the result
                call.loop.call_soon_threadsafe(self._settle)
        del call  # the traceback of an error holds this frame, and the call holds the error

    def _is_delayed(self, call: Call) -> bool:  # noqa: ARG002 - for subclasses
        """Whether the event loop is not woken for this result, but reads it together with the next one."""
        return False

    def _settle(self) -> None:
        """Delivers the results of all calls that have ended, on the event loop."""
        self._is_loop_woken = False  # before reading: a call that ends from now on is read below, or wakes it again
        while self._ended:
            self._deliver(self._ended.popleft())

    def _deliver(self, call: Call) -> None:
        """Resolves the future of a call, unless it was cancelled."""
        if not call.done.done():
            if call.error is None:
                call.done.set_result(call.result)
            else:
                call.done.set_exception(call.error)
