"""Unpacks untrusted archives into a new directory, within limits, either completely or not at all.

Each file is written under a number, not under its name. So no name can lead out of the directory, be too long for the
file system, collide with another name, or be both a folder and a file. `ArchivedFile` keeps the original name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from workers.datasets.archives.limits import ArchiveLimits, Budget
from workers.datasets.archives.name_encoding import NameEncoding
from workers.datasets.archives.signatures import HEAD_BYTES, describe_content
from workers.datasets.archives.tar_archive import PIECE_BYTES, unpack_tar
from workers.datasets.archives.zip_archive import unpack_zip
from workers.datasets.disk_space import disk_full_errors
from workers.errors import BrokenArchive

__all__ = ["ArchiveLimits", "ArchivedFile", "UnpackedArchive", "unpack_archive"]

_TAR_MAGIC_AT = 257
_KIND_BYTES = 512
_OTHER_PACKER_HINT = "Unpack it, and pack the folder again as a zip."
_HINTS = {
    "a 7z archive": _OTHER_PACKER_HINT,
    "a RAR archive": _OTHER_PACKER_HINT,
    "a web page": "The download brought a page instead of the file, for example a login or an error. Download it in a "
    "browser, or with the link of the file itself.",
}
_KIND_HINT = "Post a zip, tar or tar.gz file. Fovea looks at the content of the file, not at its name."


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchivedFile:
    """One unpacked file of an archive."""

    name: str  # its name in the archive: relative, forward slashes, NFC
    path: Path  # where it is now; the base name is a number
    size_bytes: int
    sha256: str
    head: bytes  # the first HEAD_BYTES bytes, which show the type of the file


@dataclass(frozen=True, kw_only=True, slots=True)
class UnpackedArchive:
    """All files of an archive, sorted by name."""

    files: tuple[ArchivedFile, ...]
    repeated_names: tuple[str, ...] = ()  # names of several entries; the last entry wins, as in other unpackers
    name_encoding: NameEncoding | None = None  # of a zip whose names have no stated encoding and are not UTF-8


def unpack_archive(
    source: IO[bytes] | Path,
    into: Path,
    *,
    limits: ArchiveLimits | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> UnpackedArchive:
    """Unpacks a zip, tar or tar.gz file into the directory `into`, which it creates.

    source: a path, or a seekable file, which stays open.
    on_progress: called after every file with the bytes of the archive that have been read, and with its size in bytes.
    Raises UnsafeArchive, BrokenArchive, DiskFull; `into` is then removed again.
    """
    with _opened(source) as file, disk_full_errors():
        packed_bytes = file.seek(0, os.SEEK_END)
        into.mkdir()
        try:
            budget = Budget(
                limits or ArchiveLimits(), packed_bytes=packed_bytes, free_bytes=shutil.disk_usage(into).free
            )
            writer = _Writer(into, budget, on_file=_progress_of(file, packed_bytes, on_progress))
            name_encoding = _unpack(file, budget, writer.write)
        except BaseException:
            shutil.rmtree(into, ignore_errors=True)
            raise
    return replace(writer.result(), name_encoding=name_encoding)


def _unpack(file: IO[bytes], budget: Budget, write: Callable[[str, IO[bytes]], None]) -> NameEncoding | None:
    file.seek(0)
    head = file.read(_KIND_BYTES)
    file.seek(0)
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return unpack_zip(file, budget, write)
    is_gzipped = head.startswith(b"\x1f\x8b")
    if not is_gzipped and not head.startswith(b"ustar", _TAR_MAGIC_AT):
        content = describe_content(head)
        reason = f": it is {content}" if content else ""
        hint = _HINTS.get(content or "", _KIND_HINT)
        raise BrokenArchive(f"The file is not a zip, tar or tar.gz archive{reason}.", hint=hint)
    unpack_tar(file, budget, write, is_gzipped=is_gzipped)
    return None


def _progress_of(
    file: IO[bytes], packed_bytes: int, on_progress: Callable[[int, int], None] | None
) -> Callable[[], None] | None:
    return None if on_progress is None else lambda: on_progress(file.tell(), packed_bytes)


@contextlib.contextmanager
def _opened(source: IO[bytes] | Path) -> Iterator[IO[bytes]]:
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield file
    else:
        yield source


class _Writer:
    """Writes files under numbers into one directory, and counts and hashes their bytes on the way."""

    def __init__(self, directory: Path, budget: Budget, *, on_file: Callable[[], None] | None) -> None:
        self._directory = directory
        self._budget = budget
        self._on_file = on_file
        self._files: dict[str, ArchivedFile] = {}
        self._repeated_names: dict[str, None] = {}
        self._number = 0

    def write(self, name: str, content: IO[bytes]) -> None:
        self._number += 1
        path = self._directory / f"{self._number:07d}"
        digest = hashlib.sha256()
        size_bytes = 0
        head = b""
        with path.open("xb") as file:
            while piece := content.read(PIECE_BYTES):
                self._budget.take_bytes(len(piece))
                head = head or piece[:HEAD_BYTES]
                size_bytes += len(piece)
                digest.update(piece)
                file.write(piece)
        earlier = self._files.pop(name, None)
        if earlier is not None:
            self._repeated_names[name] = None
            earlier.path.unlink()
        self._files[name] = ArchivedFile(
            name=name, path=path, size_bytes=size_bytes, sha256=digest.hexdigest(), head=head
        )
        if self._on_file is not None:
            self._on_file()

    def result(self) -> UnpackedArchive:
        files = tuple(self._files[name] for name in sorted(self._files))
        return UnpackedArchive(files=files, repeated_names=tuple(self._repeated_names))
