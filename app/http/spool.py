"""Files of uploads, in HOME/tmp with one directory per API process.

A process holds a lock on its directory. A killed process leaves a directory without a lock; the next start deletes it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from pathlib import Path
from typing import Self

from models.store.locks import lock_file
from workers.errors import DiskFull

_SPARE_BYTES = 64 * 1024**2  # for what other processes write at the same time


class Spool:
    """The directory for the uploads of this process."""

    def __init__(self, directory: Path, lock: int) -> None:
        self._directory = directory
        self._lock = lock

    @classmethod
    def open(cls, home: Path) -> Self:
        """Deletes what dead processes left under `home`/tmp, and makes a directory for this process."""
        parent = home / "tmp"
        parent.mkdir(parents=True, exist_ok=True)
        for directory in parent.glob("api-*"):
            _remove_if_abandoned(directory)
        name = uuid.uuid4().hex
        unlocked = parent / f"new-{name}"  # a name that starting processes ignore
        unlocked.mkdir()
        lock = os.open(unlocked / "lock", os.O_CREAT | os.O_RDWR)
        lock_file(lock)
        return cls(unlocked.rename(parent / f"api-{name}"), lock)

    def new_path(self, suffix: str = "") -> Path:
        """A path of a new file."""
        return self._directory / f"{uuid.uuid4().hex}{suffix}"

    def check_room(self, size_bytes: int) -> None:
        """Raises DiskFull if a file of that size does not fit on the disk."""
        free_bytes = shutil.disk_usage(self._directory).free
        if size_bytes + _SPARE_BYTES > free_bytes:
            raise DiskFull(
                f"The upload has {size_bytes} bytes, and the disk of FOVEA_HOME has {free_bytes} bytes free.",
                hint="Delete old datasets, jobs or model versions, or give FOVEA_HOME a larger disk.",
            )

    def close(self) -> None:
        """Deletes the directory with all its files."""
        shutil.rmtree(self._directory, ignore_errors=True)
        os.close(self._lock)


def _remove_if_abandoned(directory: Path) -> None:
    with contextlib.suppress(OSError):  # another process is deleting it
        lock = os.open(directory / "lock", os.O_CREAT | os.O_RDWR)
        try:
            lock_file(lock, wait=False)
            shutil.rmtree(directory, ignore_errors=True)
        finally:
            os.close(lock)
