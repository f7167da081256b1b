"""A file that reports how much of it has been sent. It is read in pieces, so an upload needs little memory."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

Progress = Callable[[int, int], None]  # bytes sent, bytes in total


class CountedFile(io.RawIOBase):
    """A file opened for an upload."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self._file = path.open("rb")
        self._size_bytes = os.fstat(self._file.fileno()).st_size
        self._progress = progress

    def fileno(self) -> int:
        """The descriptor; httpx asks it for the size."""
        return self._file.fileno()

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to a position."""
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        """The next bytes, counted as sent."""
        data = self._file.read(size)
        self._progress(self._file.tell(), self._size_bytes)
        return data

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()


def open_counted(path: Path, progress: Progress | None) -> BinaryIO:
    """Opens `path` for an upload. progress: called after every piece."""
    return cast("BinaryIO", CountedFile(path, progress or _unheard))


def _unheard(sent_bytes: int, size_bytes: int) -> None: ...
