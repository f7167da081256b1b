"""Threads that compute stand back for the one that answers, and those that load models for those that predict."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from typing import Final

COMPUTES: Final = 5  # a third of the event loop's weight, where both want the same core
LOADS: Final = 10  # a third of that


def stand_back(nice: int = COMPUTES) -> None:
    """For a pool's threads to begin with. On Linux, where a nice value is a thread's own; elsewhere nothing."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
