"""How long tests wait: one number, in one place.

A wait ends as soon as what it waits for is there, so a long deadline costs nothing on a quiet machine and saves the
test on a busy one. Only a test that is about to fail waits this long. `tests/contracts/test_waiting.py` refuses
deadlines that are written anywhere else.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

ValueT = TypeVar("ValueT")

SETTING: Final = "FOVEA_TEST_PATIENCE_S"
PATIENCE_S: Final = float(os.environ.get(SETTING, "600"))
"""Seconds that a test gives to anything that must happen: an event, an answer, the end of a process."""

BRIEF_S: Final = 0.2
"""Seconds for a wait that is meant to run out. A slow machine only makes it longer, so it runs out there as well."""


def wait_until(condition: Callable[[], ValueT], *, interval_s: float = 0.02) -> ValueT:
    """The first truthy value of `condition`. Raises AssertionError after PATIENCE_S."""
    ends = time.monotonic() + PATIENCE_S
    pause = threading.Event()
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < ends, f"waited {PATIENCE_S:g} s in vain; last value: {value!r}"
        pause.wait(interval_s)
