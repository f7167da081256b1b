"""The thread that loads models, one after another, and how long it has been at the one it is at.

A load has no end that could be set: weights may come over a slow network, and a thread cannot be stopped. Whoever waits
for it gives up at the deadline; this is for the operator.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from app.engine.thread_priority import LOADS, stand_back

log = logging.getLogger(__name__)

_LONG_S: Final = 60.0  # the log says when one takes so long; most take a few seconds

Result = TypeVar("Result")


class LoadingThread:
    """Works for one model at a time."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="load", initializer=stand_back, initargs=(LOADS,))
        self._since: float | None = None  # of what it is at

    @property
    def busy_s(self) -> float:
        """How long it has been at one model; 0 if it is at none. From any thread."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def run(self, reference: str, work: Callable[[], Result]) -> asyncio.Future[Result]:
        """What `work`, for the model `reference`, gives when its turn has come."""
        return asyncio.get_running_loop().run_in_executor(self._thread, self._run, reference, work)

    def close(self) -> None:
        """Begins nothing more; what runs ends by itself."""
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
    log.warning("%s has been loading for %g s; other models wait until it is there", reference, seconds)
