"""One writer at a time for each model, among the threads, processes and machines that share a registry."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class ModelLock:
    """A held lock. Its file outlives the model: it keeps the highest number that a deleted version had."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def highest_deleted(self) -> int:
        """0 if no version was deleted."""
        return int(os.pread(self._descriptor, 20, 0) or b"0")

    def note_deleted(self, number: int) -> None:
        """Remembers a version's number, so that it is not given again."""
        if number > self.highest_deleted:
            os.pwrite(self._descriptor, b"%020d" % number, 0)
            os.fsync(self._descriptor)


@contextmanager
def hold_model_lock(path: Path) -> Iterator[ModelLock]:
    """Waits until nobody else holds the lock at `path`; its directory is made, and the file never removed."""
    path.parent.mkdir(exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield ModelLock(descriptor)
    finally:
        os.close(descriptor)
