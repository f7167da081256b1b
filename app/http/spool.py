"""Where uploads lie until they are used: HOME/tmp, on the disk that has the room, one directory an API process.

A process holds a lock on its directory. What a killed one left behind has no lock, and goes when the next one starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import uuid
from pathlib import Path
from typing import Self

from workers.errors import DiskFull

_SPARE_BYTES = 64 * 1024**2  # for what others write meanwhile


class Spool:
    """A directory for files that are being received."""

    def __init__(self, directory: Path, lock: int) -> None:
        self._directory = directory
        self._lock = lock

    @classmethod
    def open(cls, home: Path) -> Self:
        """Clears what dead processes left under `home`/tmp and makes a directory for this one."""
        parent = home / "tmp"
        parent.mkdir(parents=True, exist_ok=True)
        for directory in parent.glob("api-*"):
            _remove_if_abandoned(directory)
        name = uuid.uuid4().hex
        unlocked = parent / f"new-{name}"  # a name that no starting process clears
        unlocked.mkdir()
        lock = os.open(unlocked / "lock", os.O_CREAT | os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)
        return cls(unlocked.rename(parent / f"api-{name}"), lock)

    def new_path(self, suffix: str = "") -> Path:
        """A path where nothing is yet."""
        return self._directory / f"{uuid.uuid4().hex}{suffix}"

    def check_room(self, size_bytes: int) -> None:
        """Raises DiskFull if a file of that size has no room."""
        free_bytes = shutil.disk_usage(self._directory).free
        if size_bytes + _SPARE_BYTES > free_bytes:
            raise DiskFull(
                f"The upload has {size_bytes} bytes and {free_bytes} are free where Fovea keeps its data.",
                hint="Delete old data sets, jobs or model versions, or give FOVEA_HOME more room.",
            )

    def close(self) -> None:
        """Removes the directory and all in it."""
        shutil.rmtree(self._directory, ignore_errors=True)
        os.close(self._lock)


def _remove_if_abandoned(directory: Path) -> None:
    with contextlib.suppress(OSError):  # someone else is removing it
        lock = os.open(directory / "lock", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
        finally:
            os.close(lock)
