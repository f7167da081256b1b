"""Temporary directories beside the stored files: removed after use, and found again if their process died.

Each is locked while it is in use, so a starting process can tell abandoned ones from those of other processes.
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from models.store.locks import lock_file

TEMPORARY_PREFIX = ".tmp-"  # no name of a model, dataset or version begins with a dot


@contextlib.contextmanager
def temporary_directory(root: Path) -> Iterator[Path]:
    """A new directory under `root`, removed at the end. Its contents may be renamed away before that."""
    path, lock = _new_locked_directory(root)
    with lock:
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


def remove_abandoned_directories(root: Path) -> int:
    """Removes the temporary directories under `root` that no process uses. Returns how many."""
    removed = 0
    for path in sorted(root.glob(f"{TEMPORARY_PREFIX}*")):
        # An OSError means that the directory is in use, already removed, or owned by another user.
        with contextlib.suppress(OSError), _lock_file(path) as lock:
            lock_file(lock, wait=False)
            shutil.rmtree(path)
            removed += 1
    return removed


def _new_locked_directory(root: Path) -> tuple[Path, BinaryIO]:
    while True:
        path = root / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
        path.mkdir(parents=True)
        with contextlib.suppress(FileNotFoundError):  # a process that is starting took the directory for abandoned
            lock = _lock_file(path)
            lock_file(lock)
            if path.exists():
                return path, lock
            lock.close()


def _lock_file(directory: Path) -> BinaryIO:
    """A file that can be locked, where a directory itself cannot be: on network file systems."""
    return (directory / "lock").open("ab")
