"""Reads the entries of a tar file, plain or gzipped, in one pass and in constant memory.

`tarfile` reads the extension of a header (a long name, a PAX record) with one call, even if the extension claims to be
huge. So `tarfile` gets a file that refuses large reads.
Source: POSIX.1-2017, pax, "ustar Interchange Format".
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO

from workers.datasets.archives.entry_names import clean_entry_name, decode_entry_name, quoted
from workers.datasets.archives.limits import Budget
from workers.errors import BrokenArchive, UnsafeArchive

PIECE_BYTES = 2**20  # the most that one read may ask for
_END_BLOCK = bytes(tarfile.BLOCKSIZE)
_UPLOAD_HINT = "Open the file on your machine. If it opens there, the upload ended early: post the file again."


def unpack_tar(file: IO[bytes], budget: Budget, write: Callable[[str, IO[bytes]], None], *, is_gzipped: bool) -> None:
    """Calls `write` with the name and the content of each file; one read of the content takes at most PIECE_BYTES.

    Raises UnsafeArchive, BrokenArchive, DiskFull, and all errors of `write`.
    """
    with _tar_errors(), contextlib.ExitStack() as stack:
        unpacked = stack.enter_context(gzip.GzipFile(fileobj=file)) if is_gzipped else file
        pieces = _SmallPieces(unpacked)
        archive = stack.enter_context(tarfile.open(fileobj=pieces, mode="r:", encoding="utf-8"))
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every header it has read
            budget.take_entry()
            budget.check_bytes(member.offset_data + member.size)  # tarfile's next read skips over these bytes
            name = _checked_name(member)
            content = archive.extractfile(member) if name is not None else None
            if name is not None and content is not None:
                write(name, content)
        if pieces.last_read != _END_BLOCK:  # tarfile treats a damaged header after the first entry as the end
            raise BrokenArchive("The tar archive ends early or is damaged.", hint=_UPLOAD_HINT)


@contextlib.contextmanager
def _tar_errors() -> Iterator[None]:
    """Turns the errors that `tarfile` and `gzip` raise on damaged bytes into BrokenArchive."""
    try:
        yield
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, OverflowError) as error:
        raise BrokenArchive(f"The tar archive is damaged: {str(error).rstrip('.')}.", hint=_UPLOAD_HINT) from error
    except RecursionError as error:  # a header that extends a header that extends a header …
        raise BrokenArchive("The tar archive is damaged: its headers never end.", hint=_UPLOAD_HINT) from error


def _checked_name(member: tarfile.TarInfo) -> str | None:
    """Returns the name of a file to unpack, or None for a folder and for a file of the operating system.

    Raises UnsafeArchive.
    """
    name = clean_entry_name(decode_entry_name(member.name.encode("utf-8", "surrogateescape")))
    if member.issym() or member.islnk():
        raise UnsafeArchive(
            f"The archive contains a link: {quoted(member.name)}.",
            hint="Pack the files themselves instead of links: tar --dereference --hard-dereference.",
        )
    if not member.isreg() and not member.isdir():
        raise UnsafeArchive(
            f"The archive contains a device or another special file: {quoted(member.name)}.",
            hint="Pack only plain files and folders.",
        )
    return name if member.isreg() else None


class _SmallPieces(io.BufferedIOBase):
    """A file that refuses large reads and remembers what the last read returned."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile) -> None:
        self._file = file
        self.last_read = b""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= PIECE_BYTES:
            raise UnsafeArchive(
                f"A header of the tar archive claims {size:,} bytes.", hint="Pack the folder again with tar."
            )
        self.last_read = self._file.read(size)
        return self.last_read

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()
