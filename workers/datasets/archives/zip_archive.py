"""The entries of a zip file, checked before the first of them is unpacked.

`zipfile` reads the whole central directory and makes an object of each entry before anyone can count them. So the
directory is walked here first, in constant memory, and `zipfile` is then allowed to read that very directory only.
Source: PKWARE APPNOTE 6.3.10, sections 4.3 (records) and 4.4 (fields).
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO

from workers.datasets.archives.entry_names import clean_entry_name, decode_entry_name, shown
from workers.datasets.archives.limits import Budget
from workers.errors import BrokenArchive, UnsafeArchive

_ENTRY = struct.Struct("<4s24x3H12x")  # central file header: signature; lengths of name, extra field and comment
_END = struct.Struct("<4s6xHIIH")  # signature; entries, size and offset of the directory; length of the comment
_LOCATOR_64 = struct.Struct("<4s16x")
_END_64 = struct.Struct("<4s28xQQQ")
_LOCAL_HEADER_BYTES = 30
_LONGEST_COMMENT = 0xFFFF
_PIECE_BYTES = 2 * 2**20  # more than any read of zipfile's but that of the directory
_DIRECTORY_BYTES_AN_ENTRY = 512  # on average: three times what long paths need
_UTF8_NAME, _ENCRYPTED = 0x800, 0x1
_METHODS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "xz", 98: "PPMd"}
_UPLOAD_HINT = "Open it on your machine; if it opens there, the upload ended early: post it again."
_REPACK_HINT = "Pack the folder again as an ordinary zip (method Deflate) or as tar.gz."


def unpack_zip(file: IO[bytes], budget: Budget, write: Callable[[str, IO[bytes]], None]) -> None:
    """Hands name and content of each file to `write`, in the order of their bytes; first checks every entry.

    Raises UnsafeArchive, BrokenArchive, DiskFull, and whatever `write` raises.
    """
    directory = _find_directory(file, budget)
    with _zip_errors(), zipfile.ZipFile(_CountedDirectory(file, directory)) as archive:
        infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
        _check_overlaps(infos, directory_start=directory[0])
        named = [(name, info) for info in infos if (name := _checked_name(info)) is not None]
        budget.check_bytes(sum(info.file_size for _, info in named))
        for name, info in named:
            with archive.open(info) as content:
                write(name, content)


@contextlib.contextmanager
def _zip_errors() -> Iterator[None]:
    """Turns whatever `zipfile` and its decompressor raise on damaged bytes into BrokenArchive."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, ValueError, OverflowError, RuntimeError) as error:
        raise BrokenArchive(f"The zip file is damaged: {str(error).rstrip('.')}.", hint=_UPLOAD_HINT) from error


def _find_directory(file: IO[bytes], budget: Budget) -> tuple[int, int]:
    """Where the central directory begins and how many bytes it has, after counting its entries.

    Follows zipfile: the directory ends where the end records begin, whatever offset they tell.
    """
    size = file.seek(0, os.SEEK_END)
    tail_start = max(0, size - _END.size - _LONGEST_COMMENT)
    file.seek(tail_start)
    tail = file.read(_END.size + _LONGEST_COMMENT)
    position = _end_record(tail)
    if position is None:
        raise BrokenArchive("The zip file has no directory: it ends early.", hint=_UPLOAD_HINT)
    _, count, directory_bytes, _, _ = _END.unpack_from(tail, position)
    end = tail_start + position
    found_64 = _end_record_64(file, end)
    if found_64 is not None:
        count, directory_bytes = found_64
        end -= _LOCATOR_64.size + _END_64.size
    budget.check_entries(count)
    if directory_bytes > budget.limits.max_files * _DIRECTORY_BYTES_AN_ENTRY:
        raise UnsafeArchive("The zip file's directory is larger than its files' names need.", hint=_REPACK_HINT)
    start = end - directory_bytes
    if start < 0:
        raise BrokenArchive("The zip file's directory is longer than the file.", hint=_UPLOAD_HINT)
    _count_entries(file, start, end, budget)
    return start, directory_bytes


def _end_record(tail: bytes) -> int | None:
    """Where in `tail`, the file's last bytes, the end of central directory record is."""
    without_comment = len(tail) - _END.size
    if without_comment >= 0 and tail.startswith(b"PK\5\6", without_comment) and tail.endswith(b"\0\0"):
        return without_comment
    position = tail.rfind(b"PK\5\6")
    return position if 0 <= position <= without_comment else None


def _end_record_64(file: IO[bytes], end: int) -> tuple[int, int] | None:
    """Entries and size of the directory by the ZIP64 records before `end`, if there are any."""
    start = end - _LOCATOR_64.size - _END_64.size
    if start < 0:
        return None
    file.seek(start)
    records = file.read(_END_64.size + _LOCATOR_64.size)
    if not records.startswith(b"PK\6\6") or not records.startswith(b"PK\6\7", _END_64.size):
        return None
    _, count, directory_bytes, _ = _END_64.unpack_from(records)
    return count, directory_bytes


def _count_entries(file: IO[bytes], start: int, end: int, budget: Budget) -> None:
    """Walks the headers from `start` to `end`: what an end record tells of their number may be a lie."""
    position = file.seek(start)
    while position < end:
        header = file.read(_ENTRY.size)
        if len(header) < _ENTRY.size or not header.startswith(b"PK\1\2"):
            raise BrokenArchive("The zip file's directory is damaged.", hint=_UPLOAD_HINT)
        budget.take_entry()
        _, name_bytes, extra_bytes, comment_bytes = _ENTRY.unpack(header)
        position = file.seek(name_bytes + extra_bytes + comment_bytes, os.SEEK_CUR)


def _check_overlaps(infos: list[zipfile.ZipInfo], *, directory_start: int) -> None:
    """Raises UnsafeArchive if two entries share bytes: one kernel of zeros would count for thousands of files.

    Source: D. Fifield, "A better zip bomb", WOOT 2019.
    """
    ends = [info.header_offset for info in infos[1:]] + [directory_start]
    for info, end in zip(infos, ends, strict=False):  # an empty archive has an end and no entry
        if info.header_offset + _LOCAL_HEADER_BYTES + info.compress_size > end:
            raise UnsafeArchive(
                f"Files in the archive overlap, as in a zip bomb: {shown(info.orig_filename)}.", hint=_REPACK_HINT
            )


def _checked_name(info: zipfile.ZipInfo) -> str | None:
    """The file's name; None for folders and junk, which are not unpacked."""
    raw_name = info.orig_filename
    if not info.flag_bits & _UTF8_NAME:
        raw_name = decode_entry_name(raw_name.encode("cp437"))  # as zipfile decoded it, undone
    name = clean_entry_name(raw_name)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        what = "a link" if kind == stat.S_IFLNK else "a device or another special file"
        raise UnsafeArchive(
            f"The archive holds {what}: {shown(raw_name)}.", hint="Pack the files themselves in its place."
        )
    if name is None or kind == stat.S_IFDIR or raw_name.endswith(("/", "\\")):
        return None
    if info.flag_bits & _ENCRYPTED:
        raise UnsafeArchive("The zip file has a password.", hint="Pack the folder again without one.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        method = _METHODS.get(info.compress_type, f"method {info.compress_type}")
        raise BrokenArchive(f"{shown(name)} is packed with {method}, which Fovea does not unpack.", hint=_REPACK_HINT)
    return name


class _CountedDirectory:
    """A zip file of which no large piece can be read but the central directory that was counted.

    So zipfile cannot be made to find another one, by a rule in which the two readers differ.
    """

    def __init__(self, file: IO[bytes], directory: tuple[int, int]) -> None:
        self._file = file
        self._directory = directory

    def read(self, size: int = -1, /) -> bytes:
        if size < 0:
            data = self._file.read(_PIECE_BYTES + 1)
            size = len(data)
        elif size > _PIECE_BYTES and (self._file.tell(), size) == self._directory:
            return self._file.read(size)
        else:
            data = self._file.read(min(size, _PIECE_BYTES))
        if size > _PIECE_BYTES:
            raise BrokenArchive("The zip file has two directories.", hint=_REPACK_HINT)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True
