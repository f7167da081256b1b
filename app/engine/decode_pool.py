"""The threads that decode and finish, and on a single core predict: the most urgent goes first, whatever came before.

Every call adds itself to its line and one turn to the executor; whose turn it is, is decided only when a thread is
free, by the thread itself. So no thread waits for the event loop between two calls, and no lock is needed beside the
executor's: adding to a deque and taking from it are atomic.

Waking the event loop takes a part of a core that decodes and predicts, so where nobody can do anything with a single
result, the results of quick calls are told together.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, Literal, TypeVar

from app.engine.thread_priority import stand_back

Urgency = Literal["finish", "network", "interactive", "bulk network", "bulk"]
_URGENCIES: Final[tuple[Urgency, ...]] = ("finish", "network", "interactive", "bulk network", "bulk")

_QUICK_S = 0.01  # a call that takes longer is told of at once
_LONGEST_HELD_S = 0.03

Result = TypeVar("Result")


_Told = tuple[Urgency, "asyncio.Future[Any]", Any, BaseException | None]


class _Waiting:
    """A call, until a thread takes it."""

    __slots__ = ("done", "has_company", "loop", "work")

    def __init__(self, work: tuple[Any, ...], loop: asyncio.AbstractEventLoop, *, has_company: bool) -> None:
        self.work: tuple[Any, ...] | None = work  # a function and its arguments; None: given up
        self.loop = loop
        self.has_company = has_company
        self.done: asyncio.Future[Any] = loop.create_future()


class DecodePool:
    """Runs calls in threads, by urgency and then in their order. To be used from one event loop."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode", initializer=stand_back)
        self._lines: dict[Urgency, deque[_Waiting]] = {urgency: deque() for urgency in _URGENCIES}
        self._unsettled = dict.fromkeys(_URGENCIES, 0)  # calls whose results the event loop does not know
        self._untold: deque[_Told] = deque()  # results, on their way to the event loop
        self._untold_since = 0.0
        self._is_woken = False  # the event loop, which has not come to it yet
        self.told_together = 1  # results that are told at once; with one thread only
        self.after_call: Callable[[], None] = lambda: None  # on the event loop, once its result is known there

    @property
    def waiting(self) -> int:
        """Calls that no thread has taken yet, those given up until their turn too."""
        return sum(map(len, self._lines.values()))

    def is_busy(self, urgency: Urgency) -> bool:
        """Whether there is a call as urgent, or more so, without a result yet. `after_call` tells of every result."""
        return any(self._unsettled[line] for line in _URGENCIES[: _URGENCIES.index(urgency) + 1])

    def submit(self, urgency: Urgency, work: Callable[..., Result], *args: object) -> asyncio.Future[Result]:
        """What `work` returns or raises, when it has had its turn."""
        return self._line_up(urgency, work, args).done

    async def run(
        self, urgency: Urgency, work: Callable[..., Result], *args: object, has_company: bool = False
    ) -> Result:
        """What `work` returns or raises; cancelled before its turn, it never runs.

        has_company: one result alone is of no use, unless it is an error: it may be told with the next call's.
        """
        waiting = self._line_up(urgency, work, args, has_company=has_company)
        try:
            result: Result = await waiting.done
        except asyncio.CancelledError:
            waiting.work = None  # lets go of the picture; the turn passes in no time
            raise
        return result

    def close(self) -> None:
        """Takes no more, and gives up what waits; what runs ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        while (found := self._next()) is not None:
            found[1].done.cancel()
        self._settle()  # after that: a result waits for others only while there are some

    def _line_up(
        self, urgency: Urgency, work: Callable[..., Any], args: tuple[object, ...], *, has_company: bool = False
    ) -> _Waiting:
        waiting = _Waiting((work, *args), asyncio.get_running_loop(), has_company=has_company)
        self._unsettled[urgency] += 1
        self._lines[urgency].append(waiting)
        self._threads.submit(self._take_turn)
        return waiting

    def _next(self) -> tuple[Urgency, _Waiting] | None:
        for urgency, line in self._lines.items():
            with suppress(IndexError):
                return urgency, line.popleft()
        return None

    def _take_turn(self) -> None:
        """In a thread. There are as many turns as calls, so there is one left for it."""
        found = self._next()
        if found is None:  # closed
            return
        urgency, waiting = found
        work, waiting.work = waiting.work, None
        outcome: tuple[Any, BaseException | None] = None, None
        began_at = time.perf_counter()
        if work is not None:  # not given up
            function, *args = work
            try:
                outcome = function(*args), None
            except BaseException as error:  # whoever awaits it decides
                outcome = None, error
            del function, args
        del found, work
        ended_at = time.perf_counter()
        if not self._untold:
            self._untold_since = ended_at
        self._untold.append((urgency, waiting.done, *outcome))
        is_error = outcome[1] is not None or isinstance(outcome[0], Exception)
        may_wait = waiting.has_company and not is_error and self._may_wait(urgency, began_at, ended_at)
        if not self._is_woken and not may_wait:
            self._is_woken = True
            with suppress(RuntimeError):  # the loop was closed meanwhile: nobody awaits it
                waiting.loop.call_soon_threadsafe(self._settle)
        del waiting, outcome  # an error's traceback has this frame: it would hold the future, and that the error

    def _may_wait(self, urgency: Urgency, began_at: float, ended_at: float) -> bool:
        """Whether the event loop need not hear of a result before that of the next call, which there is."""
        return (
            len(self._untold) < self.told_together
            and bool(self._lines[urgency])
            and ended_at - began_at < _QUICK_S
            and ended_at - self._untold_since < _LONGEST_HELD_S
        )

    def _settle(self) -> None:
        """On the event loop."""
        self._is_woken = False  # first: what comes from here on is seen below, or wakes it again
        while self._untold:
            self._settle_one(*self._untold.popleft())
            self.after_call()

    def _settle_one(
        self, urgency: Urgency, done: asyncio.Future[Any], result: Any, error: BaseException | None
    ) -> None:
        self._unsettled[urgency] -= 1
        if not done.done():
            if error is None:
                done.set_result(result)
            else:
                done.set_exception(error)
