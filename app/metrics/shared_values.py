"""Metrics of the replicas of one port: each of them answers for all.

Each replica keeps its numbers in files of its own in one directory, and the one that is asked adds them up: the
multiprocess mode of prometheus_client. The library decides for it when it is imported, by the environment; here it is
decided when the metrics are made, whatever was imported before. What is counted goes to the file once a second, for to
write every count there would cost more than all the rest of counting.
Counters and histograms of a process that ended stay in the sum; its gauges go by `forget_process`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final

from prometheus_client import Metric, values
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

DIRECTORY_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"


def shared_directory() -> Path | None:
    """The directory in which replicas keep their metrics; None if this process has the port to itself."""
    named = os.environ.get(DIRECTORY_VARIABLE)
    return Path(named) if named else None


def share_values(directory: Path) -> SharedValues:
    """Has every metric that is made from now on keep its values in `directory`. Raises OSError if it cannot."""
    if not directory.is_dir() or not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        msg = f"{DIRECTORY_VARIABLE} is {str(directory)!r}: not a directory where this process may write."
        raise NotADirectoryError(msg)
    os.environ[DIRECTORY_VARIABLE] = str(directory)
    own = _values_of_this_process()
    values.ValueClass = own.make
    return SharedValues(directory, own)


def forget_process(directory: Path, pid: int) -> None:
    """Removes the gauges of a replica that is gone, for the process that started it. Its counts stay."""
    mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]


class SharedValues(Collector):
    """The metrics of all replicas; those of the others as they wrote them last."""

    def __init__(self, directory: Path, own: _OwnValues) -> None:
        self._directory = directory
        self._own = own

    def write_out(self) -> None:
        """Shows the other replicas what this one has counted."""
        self._own.write_out()

    def collect(self) -> Iterable[Metric]:
        self.write_out()
        # a file is empty for a moment after it was made, and for ever if its process was killed just then
        files = [str(path) for path in sorted(self._directory.glob("*.db")) if _size_bytes(path)]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return merged


class _OwnValues:
    """The values of this process, and which of them are not in its files yet."""

    def __init__(self) -> None:
        self._in_file: Any = values.MultiProcessValue()  # type: ignore[no-untyped-call]
        self._changed: list[_Counted] = []
        self._one_at_a_time = threading.Lock()

    def make(self, typ: str, *args: Any, **options: Any) -> Any:
        """What prometheus_client keeps a number in."""
        value = self._in_file(typ, *args, **options)
        return value if typ == "gauge" else _Counted(value, self)

    def has_changed(self, value: _Counted) -> None:
        self._changed.append(value)

    def write_out(self) -> None:
        with self._one_at_a_time:
            changed, self._changed = self._changed, []
            for value in changed:
                value.write_out()


class _Counted:
    """A number that grows in memory; from one thread, while any may write it out."""

    __slots__ = ("_in_file", "_is_written", "_own", "_value")

    def __init__(self, in_file: Any, own: _OwnValues) -> None:
        self._in_file = in_file
        self._own = own
        self._value: float = in_file.get()
        self._is_written = True

    def inc(self, amount: float) -> None:
        self._value += amount
        if self._is_written:
            self._is_written = False
            self._own.has_changed(self)

    def get(self) -> float:
        return self._value

    def write_out(self) -> None:
        self._is_written = True  # before the value is read: what is added from now on is noted again
        self._in_file.set(self._value)


@cache  # a second one would open this process's files a second time, and each would write over the other
def _values_of_this_process() -> _OwnValues:
    return _OwnValues()


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # its process is gone, and its gauges were taken away
        return 0
