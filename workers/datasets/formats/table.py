"""Reads tables: CSV files with the separators and encodings that spreadsheets write, and files of JSON lines.

The separator is a comma, a semicolon or a tab; the encoding is UTF-8 or UTF-16, with or without a byte order mark.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.formats.reading import unusable
from workers.errors import UnusableDataset

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
_JSON_SUFFIXES = (".jsonl", ".ndjson")
_DELIMITERS = (",", ";", "\t")
_MAX_BYTES = 64 * 2**20
_HEADER_BYTES = 2**16
_SEPARATOR_LINE = re.compile(r"\s*sep=.\s*$", re.IGNORECASE)  # Excel writes it above the header

Cells = list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A file with a header."""

    file: ArchivedFile
    headers: tuple[str, ...]  # as the file writes them, without spaces and quotes around them
    encoding: str
    delimiter: str | None  # None: JSON lines
    skipped_lines: int = 0  # lines above the header

    @property
    def columns(self) -> tuple[str, ...]:
        """The headers in one spelling: `file_name` for `File Name`, `file-name` and `FileName`."""
        return tuple(_column(header) for header in self.headers)

    def rows(self) -> Iterator[tuple[int, Cells | None]]:
        """Yields the line and the cells of each row below the header, without empty rows; None if it cannot be read.

        Raises UnusableDataset if the file is too large, damaged or in another encoding.
        """
        if self.file.size_bytes > _MAX_BYTES:
            raise unusable(
                f"{self.file.name} has {self.file.size_bytes:,} bytes, but a list may have at most {_MAX_BYTES:,}.",
                hint="Remove columns that are not needed.",
                code="list_too_large",
            )
        try:
            yield from self._json_rows() if self.delimiter is None else self._csv_rows(self.delimiter)
        except UnicodeDecodeError as error:
            name = "UTF-8" if self.encoding.startswith("utf-8") else "UTF-16"
            raise unusable(
                f"{self.file.name} is not {name}.",
                hint="In a spreadsheet, save it as “CSV UTF-8”.",
                code="list_not_utf8",
            ) from error
        except csv.Error as error:
            raise unusable(
                f"{self.file.name} is damaged: {error}.",
                hint="Open it in a spreadsheet and save it again.",
                code="bad_list",
            ) from error

    def sample(self, count: int) -> list[Cells]:
        """Returns the first `count` rows that can be read; fewer if the file is shorter or damaged."""
        found: list[Cells] = []
        try:
            found.extend(islice((cells for _, cells in self.rows() if cells is not None), count))
        except UnusableDataset:
            return found  # the rows before the damage; reading the whole table raises the error again
        return found

    def _csv_rows(self, delimiter: str) -> Iterator[tuple[int, Cells | None]]:
        with self.file.path.open(encoding=self.encoding, newline="") as content:
            reader = csv.reader(content, delimiter=delimiter)
            for _ in range(self.skipped_lines + 1):
                next(reader, None)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield reader.line_num, cells

    def _json_rows(self) -> Iterator[tuple[int, Cells | None]]:
        with self.file.path.open(encoding=self.encoding) as content:
            for number, line in enumerate(content, start=1):
                if line.strip():
                    entry = parsed_line(line)
                    yield number, None if entry is None else [_text(entry.get(header)) for header in self.headers]


def open_table(file: ArchivedFile) -> Table | None:
    """Reads the header of `file`. Returns None if it is not a table of two or more columns."""
    if not file.name.lower().endswith(SUFFIXES):
        return None
    with file.path.open("rb") as content:
        head = content.read(_HEADER_BYTES)
    encoding = _encoding(head)
    lines = io.StringIO(head.decode(encoding, errors="replace")).read().splitlines()
    if file.name.lower().endswith(_JSON_SUFFIXES):
        first = parsed_line(next((line for line in lines if line.strip()), ""))
        keys = tuple(first or ())
        return Table(file=file, headers=keys, encoding=encoding, delimiter=None) if len(keys) > 1 else None
    skipped = 1 if lines and _SEPARATOR_LINE.match(lines[0]) else 0
    header = lines[skipped] if len(lines) > skipped else ""
    headers, delimiter = max(
        ((_split(header, delimiter), delimiter) for delimiter in _DELIMITERS), key=lambda each: len(each[0])
    )
    if len(headers) < 2:
        return None
    return Table(file=file, headers=headers, encoding=encoding, delimiter=delimiter, skipped_lines=skipped)


def parsed_line(line: str) -> dict[str, Any] | None:
    """Returns the JSON object of a line, or None if it is none."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def tables(files: Sequence[ArchivedFile]) -> list[Table]:
    """Returns all tables of an archive."""
    return [table for file in files if (table := open_table(file)) is not None]


def _encoding(head: bytes) -> str:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if head[1:40:2].count(0) > 8:  # Latin letters in UTF-16 without a byte order mark
        return "utf-16-le"
    return "utf-16-be" if head[0:40:2].count(0) > 8 else "utf-8-sig"


def _split(header: str, delimiter: str) -> tuple[str, ...]:
    try:
        cells = next(csv.reader([header], delimiter=delimiter), [])
    except csv.Error:
        return ()
    return tuple(cell.strip(' "\r\n\ufeff') for cell in cells)


def _column(header: str) -> str:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", header)
    return re.sub(r"[\s_-]+", "_", words).strip("_").casefold()


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""
