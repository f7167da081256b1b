"""Waiting for a condition with a deadline, in place of sleeping and hoping."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

ValueT = TypeVar("ValueT")


def wait_until(condition: Callable[[], ValueT], *, deadline_s: float = 90.0, interval_s: float = 0.02) -> ValueT:
    """The first truthy value of `condition`. Raises AssertionError at the deadline."""
    ends = time.monotonic() + deadline_s
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < ends, f"waited {deadline_s} s in vain; last value: {value!r}"
        pause.wait(interval_s)
