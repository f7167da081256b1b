"""Locks on files, for threads, processes and machines that share a directory."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def lock_file(file: IO[bytes] | int, *, wait: bool = True) -> None:
    """Locks an open file until it is closed or its last holder has died. A child that inherits the file holds it too.

    Raises BlockingIOError if another holds the lock and `wait` is false.
    """
    fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Waits for the lock on the file at `path` and holds it for the block. Creates the file if it is missing."""
    with path.open("ab") as file:
        lock_file(file)
        yield
