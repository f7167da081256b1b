"""Reads the entries of a zip file; all of them are checked before the first one is unpacked.

`zipfile` reads the whole central directory and creates an object per entry before its caller can count the entries. So
this module first walks the directory in constant memory. `zipfile` may then read that directory and no other.
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

from workers.datasets.archives.entry_names import clean_entry_name, quoted
from workers.datasets.archives.limits import Budget
from workers.datasets.archives.name_encoding import NameEncoding, decoded, find_name_encoding, is_undecided
from workers.errors import BrokenArchive, UnsafeArchive

_ENTRY = struct.Struct("<4s24x3H12x")  # central file header: signature; lengths of name, extra field and comment
_END = struct.Struct("<4s6xHIIH")  # signature; entries, size and offset of the directory; length of the comment
_LOCATOR_64 = struct.Struct("<4s16x")
_END_64 = struct.Struct("<4s28xQQQ")
_LOCAL_HEADER_BYTES = 30
_LONGEST_COMMENT = 0xFFFF
_PIECE_BYTES = 2 * 2**20  # larger than every read of zipfile except the one that reads the directory
_DIRECTORY_BYTES_PER_ENTRY = 512  # average; three times what long paths need
_UTF8_NAME, _ENCRYPTED = 0x800, 0x1
_METHODS = {9: "Deflate64", 12: "bzip2", 14: "LZMA", 93: "Zstandard", 95: "xz", 98: "PPMd"}
_TEXT_SUFFIXES = (".json", ".jsonl", ".xml", ".csv", ".tsv", ".txt", ".yaml", ".yml")
_TEXT_BYTES = 8 * 2**20  # of texts that are searched for names
_UPLOAD_HINT = "Open the file on your machine. If it opens there, the upload ended early: post the file again."
_REPACK_HINT = "Pack the folder again as an ordinary zip (method Deflate) or as tar.gz."


def unpack_zip(file: IO[bytes], budget: Budget, write: Callable[[str, IO[bytes]], None]) -> NameEncoding | None:
    """Checks every entry, then calls `write` with the name and the content of each file, in the order of the bytes.

    Returns the encoding of names that are not UTF-8 and whose encoding the archive does not state, if there are any.
    Raises UnsafeArchive, BrokenArchive, DiskFull, and all errors of `write`.
    """
    directory = _find_directory(file, budget)
    with _zip_errors(), zipfile.ZipFile(_CountedDirectory(file, directory)) as archive:
        infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
        _check_overlaps(infos, directory_start=directory[0])
        encoding = _name_encoding(archive, infos)
        named = [(name, info) for info in infos if (name := _checked_name(info, encoding)) is not None]
        budget.check_bytes(sum(info.file_size for _, info in named))
        for name, info in named:
            with archive.open(info) as content:
                write(name, content)
    return encoding


def _name_encoding(archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo]) -> NameEncoding | None:
    raw_names = [_raw_name(info) for info in infos if not info.flag_bits & _UTF8_NAME]
    if not any(map(is_undecided, raw_names)):
        return None
    return find_name_encoding(raw_names, _beginnings(archive, infos))


def _beginnings(archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo]) -> Iterator[bytes]:
    """Yields the beginnings of the files that may contain names of images."""
    left = _TEXT_BYTES
    for info in infos:
        is_plain = not info.flag_bits & _ENCRYPTED and info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if left > 0 and is_plain and info.orig_filename.lower().endswith(_TEXT_SUFFIXES):
            with archive.open(info) as content:
                data = content.read(min(left, _PIECE_BYTES))
            left -= len(data)
            yield data


def _raw_name(info: zipfile.ZipInfo) -> bytes:
    """The bytes of a name without the flag for UTF-8; undoes what `zipfile` decoded."""
    return info.orig_filename.encode("cp437")


@contextlib.contextmanager
def _zip_errors() -> Iterator[None]:
    """Turns the errors that `zipfile` and its decompressor raise on damaged bytes into BrokenArchive."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, ValueError, OverflowError, RuntimeError) as error:
        raise BrokenArchive(f"The zip file is damaged: {str(error).rstrip('.')}.", hint=_UPLOAD_HINT) from error


def _find_directory(file: IO[bytes], budget: Budget) -> tuple[int, int]:
    """Returns the offset and the size of the central directory in bytes, after counting its entries.

    As in `zipfile`, the directory ends where the end records begin; the offset that they state is ignored.
    """
    size = file.seek(0, os.SEEK_END)
    tail_start = max(0, size - _END.size - _LONGEST_COMMENT)
    file.seek(tail_start)
    tail = file.read(_END.size + _LONGEST_COMMENT)
    position = _end_record(tail)
    if position is None:
        raise BrokenArchive("The zip file ends early: its directory is missing.", hint=_UPLOAD_HINT)
    _, count, directory_bytes, _, _ = _END.unpack_from(tail, position)
    end = tail_start + position
    found_64 = _end_record_64(file, end)
    if found_64 is not None:
        count, directory_bytes = found_64
        end -= _LOCATOR_64.size + _END_64.size
    budget.check_entries(count)
    if directory_bytes > budget.limits.max_files * _DIRECTORY_BYTES_PER_ENTRY:
        raise UnsafeArchive("The directory of the zip file is larger than the names of its files.", hint=_REPACK_HINT)
    start = end - directory_bytes
    if start < 0:
        raise BrokenArchive("The directory of the zip file is longer than the file.", hint=_UPLOAD_HINT)
    _count_entries(file, start, end, budget)
    return start, directory_bytes


def _end_record(tail: bytes) -> int | None:
    """Returns the position of the end of central directory record in `tail`, the last bytes of the file."""
    without_comment = len(tail) - _END.size
    if without_comment >= 0 and tail.startswith(b"PK\5\6", without_comment) and tail.endswith(b"\0\0"):
        return without_comment
    position = tail.rfind(b"PK\5\6")
    return position if 0 <= position <= without_comment else None


def _end_record_64(file: IO[bytes], end: int) -> tuple[int, int] | None:
    """Returns the number of entries and the directory's size from the ZIP64 records before `end`, if there are any."""
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
    """Counts the entries by walking their headers from `start` to `end`. The count in the end record may be false."""
    position = file.seek(start)
    while position < end:
        header = file.read(_ENTRY.size)
        if len(header) < _ENTRY.size or not header.startswith(b"PK\1\2"):
            raise BrokenArchive("The directory of the zip file is damaged.", hint=_UPLOAD_HINT)
        budget.take_entry()
        _, name_bytes, extra_bytes, comment_bytes = _ENTRY.unpack(header)
        position = file.seek(name_bytes + extra_bytes + comment_bytes, os.SEEK_CUR)


def _check_overlaps(infos: list[zipfile.ZipInfo], *, directory_start: int) -> None:
    """Raises UnsafeArchive if two entries share bytes, as in a zip bomb where thousands of files share their content.

    Source: D. Fifield, "A better zip bomb", WOOT 2019.
    """
    ends = [info.header_offset for info in infos[1:]] + [directory_start]
    for info, end in zip(infos, ends, strict=False):  # an empty archive has an end and no entry
        if info.header_offset + _LOCAL_HEADER_BYTES + info.compress_size > end:
            raise UnsafeArchive(
                f"Files in the archive overlap, as in a zip bomb: {quoted(info.orig_filename)}.", hint=_REPACK_HINT
            )


def _checked_name(info: zipfile.ZipInfo, encoding: NameEncoding | None) -> str | None:
    """Returns the name of a file to unpack, or None for a folder and for a file of the operating system.

    Raises UnsafeArchive, BrokenArchive.
    """
    raw_name = info.orig_filename
    if not info.flag_bits & _UTF8_NAME:
        raw_name = decoded(_raw_name(info), encoding)
    name = clean_entry_name(raw_name)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        what = "a link" if kind == stat.S_IFLNK else "a device or another special file"
        raise UnsafeArchive(
            f"The archive contains {what}: {quoted(raw_name)}.", hint="Pack only plain files and folders."
        )
    if name is None or kind == stat.S_IFDIR or raw_name.endswith(("/", "\\")):
        return None
    if info.flag_bits & _ENCRYPTED:
        raise UnsafeArchive("The zip file has a password.", hint="Pack the folder again without a password.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        method = _METHODS.get(info.compress_type, f"method {info.compress_type}")
        raise BrokenArchive(
            f"{quoted(name)} is compressed with {method}, which Fovea does not support.", hint=_REPACK_HINT
        )
    return name


class _CountedDirectory:
    """A zip file that allows one large read: that of the central directory whose entries were counted.

    So a crafted file cannot lead `zipfile` to another directory, even if `zipfile` searches by slightly other rules.
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
