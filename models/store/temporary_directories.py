"""Temporary directories beside what is stored: removed when done, and found again when a process died over one.

Each is locked for as long as it is in use, so a starting process can tell the abandoned ones from those of its peers.
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from models.store.locks import lock_file

TEMPORARY_PREFIX = ".tmp-"  # no model, dataset or version can be called so


@contextlib.contextmanager
def temporary_directory(root: Path) -> Iterator[Path]:
    """A new directory under `root`; whatever is left of it at the end is removed. What it holds may be renamed away."""
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
            lock_file(lock, wait=False)
            shutil.rmtree(path)
            removed += 1
    return removed


def _new_locked_directory(root: Path) -> tuple[Path, BinaryIO]:
    while True:
        path = root / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}"
        path.mkdir(parents=True)
        with contextlib.suppress(FileNotFoundError):  # a peer that starts right now took it for abandoned
            lock = _lock_file(path)
            lock_file(lock)
            if path.exists():
                return path, lock
            lock.close()


def _lock_file(directory: Path) -> BinaryIO:
    """A file that can be locked, where a directory itself cannot be: on network file systems."""
    return (directory / "lock").open("ab")
