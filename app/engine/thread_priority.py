"""Priorities of threads: computing threads yield to the event loop, loading threads to computing ones."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from typing import Final

COMPUTES: Final = 5  # a third of the event loop's share of a core
LOADS: Final = 10  # a third of a computing thread's share


def lower_priority(nice: int = COMPUTES) -> None:
    """Lowers the priority of the calling thread. Works on Linux, where each thread has a nice value."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
