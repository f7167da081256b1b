"""How long a server may fail before the client gives up, shared by the threads that use it."""

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
    """The caller no longer waits for an answer."""


class Patience:
    """The time that a server may fail; any answer renews it."""

    def __init__(
        self,
        limit_s: float,
        *,
        on_wait: Waiting | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """limit_s: longest time without any successful request, seconds."""
        self._limit_s = limit_s
        self._on_wait = on_wait
        self._now = now
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._failing_since: float | None = None
        self._faults_in_a_row = 0

    def answered(self) -> None:
        """Notes a successful request."""
        with self._lock:
            self._failing_since = None
            self._faults_in_a_row = 0

    def stop(self) -> None:
        """Ends all current and future waits."""
        self._stopped.set()

    def check(self) -> None:
        """Raises Stopped."""
        if self._stopped.is_set():
            raise Stopped

    def wait(self, failure: ClientError, wait_s: float) -> None:
        """Waits before another try.

        Raises ServerUnreachable if the limit would pass, Stopped.
        """
        wait_s = max(wait_s, _SHORTEST_WAIT_S)
        with self._lock:
            now = self._now()
            self._failing_since = now if self._failing_since is None else self._failing_since
            is_over = now + wait_s - self._failing_since > self._limit_s
        if is_over:
            raise ServerUnreachable(
                f"Gave up: no request succeeded for {self._limit_s:g} s. The last reason: {failure}", hint=failure.hint
            ) from failure
        if self._on_wait:
            self._on_wait(failure, wait_s)
        if self._stopped.wait(wait_s):
            raise Stopped

    def fault(self, failure: ClientError) -> None:
        """Notes an image on which the server failed without a reason.

        Raises ServerUnreachable after a series of such images: then the server is the cause.
        """
        with self._lock:
            self._faults_in_a_row += 1
            is_over = self._faults_in_a_row > _MOST_FAULTS_IN_A_ROW
        if is_over:
            raise ServerUnreachable(
                f"Gave up: the server failed on {_MOST_FAULTS_IN_A_ROW} images in a row. The last reason: {failure}",
                hint=failure.hint or "The server's log has the reason.",
            ) from failure


def backoff_s(tries: int) -> float:
    """Seconds to wait after the given number of failures: 0.5, doubled each time, at most 5."""
    return min(_LONGEST_WAIT_S, 0.5 * 2.0 ** min(tries - 1, 10))
