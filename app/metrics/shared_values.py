"""Metrics of several processes that answer on one port: whichever is asked tells of all of them.

Each process keeps its numbers in files of its own in one directory, and the one that is asked adds them up: the
multiprocess mode of prometheus_client. The library decides for it when it is imported, by the environment; here it is
decided when the metrics are made, whatever was imported before.
Counters and histograms of a process that ended stay in the sum; its gauges go by `forget_process`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final

from prometheus_client import Metric, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

DIRECTORY_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"


def shared_directory() -> Path | None:
    """Where the processes beside this one keep their metrics; None if it is alone."""
    named = os.environ.get(DIRECTORY_VARIABLE)
    return Path(named) if named else None


def share_values(directory: Path) -> None:
    """Has every metric that is made from now on keep its values in `directory`. Raises OSError if it cannot."""
    if not directory.is_dir() or not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        msg = f"{DIRECTORY_VARIABLE} is {str(directory)!r}: not a directory where this process may write."
        raise NotADirectoryError(msg)
    os.environ[DIRECTORY_VARIABLE] = str(directory)
    values.ValueClass = _file_values()


def forget_process(directory: Path, pid: int) -> None:
    """Takes away the gauges of a process that is gone; for whoever started it. What it counted stays."""
    mark_process_dead(pid, str(directory))


class SharedValues(Collector):
    """The metrics of all processes of the directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        # a file is empty for a moment after it was made, and for ever if its process was killed just then
        files = [str(path) for path in sorted(self._directory.glob("*.db")) if _size_bytes(path)]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files)
        return merged


@cache  # a second class would open this process's files a second time, and each would write over the other
def _file_values() -> Any:
    return values.MultiProcessValue()


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # its process is gone, and its gauges were taken away
        return 0
