"""How long a server may fail before one gives up on it: shared by the threads that ask it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from app.client.errors import ClientError, ServerUnreachable

Waiting = Callable[[ClientError, float], None]

_SHORTEST_WAIT_S = 0.1
_LONGEST_WAIT_S = 5.0
_MOST_FAULTS_IN_A_ROW = 16


class Stopped(Exception):
    """Nobody waits for the answer any more."""


class Patience:
    """Ends a wait, or the whole run: any answer renews it."""

    def __init__(
        self,
        limit_s: float,
        *,
        on_wait: Waiting | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """limit_s: how long no request at all may succeed."""
        self._limit_s = limit_s
        self._on_wait = on_wait
        self._now = now
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._failing_since: float | None = None
        self._faults_in_a_row = 0

    def answered(self) -> None:
        """A request was answered."""
        with self._lock:
            self._failing_since = None
            self._faults_in_a_row = 0

    def stop(self) -> None:
        """Ends all waits, now and later."""
        self._stopped.set()

    def check(self) -> None:
        """Raises Stopped."""
        if self._stopped.is_set():
            raise Stopped

    def wait(self, failure: ClientError, wait_s: float) -> None:
        """Waits for a better moment.

        Raises ServerUnreachable if it would come too late, Stopped.
        """
        wait_s = max(wait_s, _SHORTEST_WAIT_S)
        with self._lock:
            now = self._now()
            self._failing_since = now if self._failing_since is None else self._failing_since
            is_over = now + wait_s - self._failing_since > self._limit_s
        if is_over:
            raise ServerUnreachable(
                f"Given up: nothing was answered for {self._limit_s:g} s. The last reason: {failure}", hint=failure.hint
            ) from failure
        if self._on_wait:
            self._on_wait(failure, wait_s)
        if self._stopped.wait(wait_s):
            raise Stopped

    def fault(self, failure: ClientError) -> None:
        """An image is given up that the server failed on, for no reason that it told.

        Raises ServerUnreachable if there were only such images lately: then they are not the reason.
        """
        with self._lock:
            self._faults_in_a_row += 1
            is_over = self._faults_in_a_row > _MOST_FAULTS_IN_A_ROW
        if is_over:
            raise ServerUnreachable(
                f"Given up: the server failed on {_MOST_FAULTS_IN_A_ROW} pictures in a row. The last reason: {failure}",
                hint=failure.hint or "Its log has the reason.",
            ) from failure


def backoff_s(tries: int) -> float:
    """How long to wait after so many failures, from 1: half a second, doubled each time, at most five."""
    return min(_LONGEST_WAIT_S, 0.5 * 2.0 ** min(tries - 1, 10))
