"""Threads that compute leave the core to the one that answers."""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.engine.thread_priority import lower_priority


def _nice() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason="A nice value belongs to a process elsewhere")
def test_pool_stands_back_and_the_thread_that_made_it_does_not() -> None:
    before = _nice()
    with ThreadPoolExecutor(1, initializer=lower_priority) as pool:
        assert pool.submit(_nice).result() > before
    assert _nice() == before
