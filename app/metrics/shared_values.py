"""Metrics of the replicas of one port: each replica answers for all.

Each replica writes its numbers to its own files in one directory, and the replica that answers sums them: the
multiprocess mode of prometheus_client. The library chooses that mode when it is imported, from the environment; here it
is chosen when the metrics are created. Counts are written to the file once per second, because writing every count
costs more than all other counting. Counters and histograms of an ended process stay in the sum; `forget_process`
removes its gauges.
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
    """Makes every metric that is created later keep its values in `directory`. Raises OSError if it is not writable."""
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
    """The metrics of all replicas. Those of other replicas are as last written."""

    def __init__(self, directory: Path, own: _OwnValues) -> None:
        self._directory = directory
        self._own = own

    def write_out(self) -> None:
        """Writes the counts of this replica for the others."""
        self._own.write_out()

    def collect(self) -> Iterable[Metric]:
        self.write_out()
        # A new file is empty for a moment, and stays empty if its process is killed then.
        files = [str(path) for path in sorted(self._directory.glob("*.db")) if _size_bytes(path)]
        merged: Iterable[Metric] = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
        return merged


class _OwnValues:
    """The values of this process, with those that are not yet written to its files."""

    def __init__(self) -> None:
        self._in_file: Any = values.MultiProcessValue()  # type: ignore[no-untyped-call]
        self._changed: list[_Counted] = []
        self._one_at_a_time = threading.Lock()

    def make(self, typ: str, *args: Any, **options: Any) -> Any:
        """Creates the object in which prometheus_client keeps a number."""
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
    """A number in memory. One thread increases it, any thread may write it out."""

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
        self._is_written = True  # set before the value is read, so that later increases are noted again
        self._in_file.set(self._value)


@cache  # a second object would open the same files again, and both would overwrite each other
def _values_of_this_process() -> _OwnValues:
    return _OwnValues()


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # the process has ended and its gauges were removed
        return 0
