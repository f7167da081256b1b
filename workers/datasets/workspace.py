"""Temporary directories beside the data sets: removed when done, and found again when a process died over one.

Each is locked for as long as it is in use, so a starting process can tell the abandoned ones from those of its peers.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from models.names import new_temporary_name
from workers.errors import DiskFull

TEMPORARY_PREFIX = ".tmp-"
# EFBIG: the operator's limit on the size of a file (ulimit -f), or the file system's own.
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextlib.contextmanager
def temporary_directory(root: Path) -> Iterator[Path]:
    """A new directory under `root`, with a file `lock`; whatever is left of it at the end is removed."""
    path, lock = _new_locked_directory(root)
    with lock:
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def remove_abandoned_directories(root: Path) -> int:
    """Removes the temporary directories under `root` that no process holds; returns how many."""
    removed = 0
    for path in sorted(root.glob(f"{TEMPORARY_PREFIX}*")):
        # An OSError says that it is in use, gone by now, or of another user.
        with contextlib.suppress(OSError), _lock_file(path) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path)
            removed += 1
    return removed


@contextlib.contextmanager
def disk_full_errors() -> Iterator[None]:
    """Turns the operating system's ways to say that there is no space into DiskFull."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        raise DiskFull(
            f"There is no space left to write to: {os.strerror(error.errno)}.",
            hint="Delete data sets, jobs or model versions that are no longer needed.",
        ) from error


def _new_locked_directory(root: Path) -> tuple[Path, BinaryIO]:
    while True:
        path = root / new_temporary_name()
        path.mkdir(parents=True)
        with contextlib.suppress(FileNotFoundError):  # a peer that starts right now took it for abandoned
            lock = _lock_file(path)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.exists():
                return path, lock
            lock.close()


def _lock_file(directory: Path) -> BinaryIO:
    """A file that can be locked, where a directory itself cannot be: on network file systems."""
    return (directory / "lock").open("ab")
