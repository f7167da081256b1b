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

from models.names import new_temporary_name
from workers.errors import DiskFull

TEMPORARY_PREFIX = ".tmp-"
# EFBIG: the operator's limit on the size of a file (ulimit -f), or the file system's own.
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextlib.contextmanager
def temporary_directory(root: Path) -> Iterator[Path]:
    """A new empty directory under `root`; whatever is left of it at the end is removed."""
    path, descriptor = _new_locked_directory(root)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def remove_abandoned_directories(root: Path) -> int:
    """Removes the temporary directories under `root` that no process holds; returns how many."""
    removed = 0
    for path in sorted(root.glob(f"{TEMPORARY_PREFIX}*")):
        with contextlib.suppress(OSError):  # in use, gone by now, or of another user
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
                removed += 1
            finally:
                os.close(descriptor)
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


def _new_locked_directory(root: Path) -> tuple[Path, int]:
    while True:
        path = root / new_temporary_name()
        path.mkdir(parents=True)
        with contextlib.suppress(FileNotFoundError):  # a peer that starts right now took it for abandoned
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if path.exists():
                return path, descriptor
            os.close(descriptor)
