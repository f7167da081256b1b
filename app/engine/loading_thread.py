"""The thread that loads models, one after another, and the duration of the current load.

A load has no deadline: weights may come over a slow network, and a thread cannot be stopped. Requests stop waiting at
their own deadline; the duration is for the operator.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from app.engine.thread_priority import LOADS, lower_priority

log = logging.getLogger(__name__)

_LONG_S: Final = 60.0  # longer loads are logged; most take a few seconds

Result = TypeVar("Result")


class LoadingThread:
    """Loads one model at a time."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="load", initializer=lower_priority, initargs=(LOADS,))
        self._since: float | None = None  # start of the current load

    @property
    def busy_s(self) -> float:
        """Seconds since the current load began; 0 if there is none. May be read from any thread."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def run(self, reference: str, work: Callable[[], Result]) -> asyncio.Future[Result]:
        """The future result of `work`, which loads the model `reference`."""
        return asyncio.get_running_loop().run_in_executor(self._thread, self._run, reference, work)

    def close(self) -> None:
        """Starts no further load. The current one ends by itself."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _run(self, reference: str, work: Callable[[], Result]) -> Result:
        warning = threading.Timer(_LONG_S, _warn, (reference, _LONG_S))
        warning.daemon = True
        self._since = time.monotonic()
        try:
            warning.start()
            return work()
        finally:
            warning.cancel()
            self._since = None


def _warn(reference: str, seconds: float) -> None:
    log.warning("%s has been loading for %g s; other loads wait for it", reference, seconds)
