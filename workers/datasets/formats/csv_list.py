"""A CSV file that lists the images in the columns `path`, `label` and, optionally, `split`.

The separator is a comma, a semicolon or a tab, as spreadsheets write them. The encoding is UTF-8, with or without a
byte order mark. Other columns are ignored. Without a column `split`, the names `train.csv` and `val.csv` state the
split.
"""

from __future__ import annotations

import csv
import posixpath
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.dataset import Finding
from workers.datasets.findings import counted, finding
from workers.datasets.formats.reading import (
    Format,
    Reading,
    leftover_findings,
    resolve_splits,
    sort_files,
    split_from_word,
    unusable,
)

_EXPECTED = "images and a CSV file with the columns path and label, and optionally split (train or val)"
_HINT = f"Expected: {_EXPECTED}. Each path is relative to the CSV file or to the root of the archive."
_SUFFIXES = (".csv", ".tsv")
_DELIMITERS = (",", ";", "\t")
_MAX_LIST_BYTES = 64 * 2**20
_HEADER_BYTES = 2**16
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, kw_only=True, slots=True)
class _List:
    """A CSV file whose header has the necessary columns."""

    file: ArchivedFile
    delimiter: str
    path_at: int
    label_at: int
    split_at: int | None
    split: str | None = None  # the split of all rows, from the name of the file


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """A valid row."""

    path: str
    label: str
    split: str | None


def _fits(files: Sequence[ArchivedFile]) -> bool:
    return any(_as_list(file) is not None for file in files)


def _read(files: Sequence[ArchivedFile]) -> Reading:
    lists = _lists(files)
    rows = _RowsByFile(files)
    for each in lists:
        for row in _rows(each, rows.bad_rows):
            rows.add(row, folder=posixpath.dirname(each.file.name))
    listed, findings = rows.settled()
    unlisted = [image.name for image in sort_files(files).images if image.name not in rows.by_file]
    if unlisted:
        text = f"{counted(len(unlisted), 'image')} left out: not in the CSV file."
        findings.append(finding("info", "unlisted_images", text, unlisted))
    findings += leftover_findings(sort_files(files), used={each.file.name for each in lists})
    if not listed:
        raise unusable(
            f"No path in {', '.join(each.file.name for each in lists)} is a file of the archive.",
            hint=_HINT,
            code="no_images",
            findings=findings,
        )
    resolved, split_findings = resolve_splits(listed)
    return Reading(format="csv", files=tuple(resolved), findings=(*split_findings, *findings))


def _lists(files: Sequence[ArchivedFile]) -> list[_List]:
    """Returns the lists to read: one in all, or one per split."""
    lists = [each for file in files if (each := _as_list(file)) is not None]
    if not lists:
        tables = [file.name for file in files if file.name.lower().endswith(_SUFFIXES)]
        reason = f"{', '.join(tables[:3])} has other columns" if tables else "it contains no CSV file"
        raise unusable(
            f"The archive has no CSV file with the columns path and label: {reason}.",
            hint=_HINT,
            code="no_list",
            files=tables,
        )
    if len(lists) == 1:
        return lists
    lists = [each if each.split_at is not None else replace(each, split=_split_by_name(each)) for each in lists]
    if any(each.split_at is None and each.split is None for each in lists):
        names = [each.file.name for each in lists]
        raise unusable(
            f"Several CSV files list images: {', '.join(names[:5])}.",
            hint="Keep one of them, or name them train.csv and val.csv.",
            code="several_lists",
            files=names,
        )
    return lists


def _split_by_name(each: _List) -> str | None:
    return split_from_word(posixpath.splitext(posixpath.basename(each.file.name))[0])


def _as_list(file: ArchivedFile) -> _List | None:
    if not file.name.lower().endswith(_SUFFIXES):
        return None
    with file.path.open("rb") as content:
        header = content.readline(_HEADER_BYTES).decode("utf-8-sig", errors="replace")
    for delimiter in _DELIMITERS:
        columns = [column.strip(' "\r\n').casefold() for column in header.split(delimiter)]
        if "path" in columns and "label" in columns:
            return _List(
                file=file,
                delimiter=delimiter,
                path_at=columns.index("path"),
                label_at=columns.index("label"),
                split_at=columns.index("split") if "split" in columns else None,
            )
    return None


def _rows(each: _List, bad_rows: dict[str, str]) -> Iterator[_Row]:
    """Yields the valid rows below the header. Adds the others to `bad_rows`: `labels.csv:12` -> the reason."""
    if each.file.size_bytes > _MAX_LIST_BYTES:
        raise unusable(
            f"{each.file.name} has {each.file.size_bytes:,} bytes, but a list may have at most {_MAX_LIST_BYTES:,}.",
            hint="Remove columns that are not needed.",
            code="list_too_large",
        )
    try:
        with each.file.path.open(encoding="utf-8-sig", newline="") as content:
            reader = csv.reader(content, delimiter=each.delimiter)
            next(reader)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    row = _row(each, cells)
                    if isinstance(row, _Row):
                        yield row
                    else:
                        bad_rows[f"{each.file.name}:{reader.line_num}"] = row
    except UnicodeDecodeError as error:
        raise unusable(
            f"{each.file.name} is not UTF-8.", hint="In a spreadsheet, save it as “CSV UTF-8”.", code="list_not_utf8"
        ) from error
    except csv.Error as error:
        raise unusable(
            f"{each.file.name} is damaged: {error}.",
            hint="Open it in a spreadsheet and save it again.",
            code="bad_list",
        ) from error


def _row(each: _List, cells: Sequence[str]) -> _Row | str:
    """Returns the row, or the reason why it is invalid."""
    if len(cells) <= max(each.path_at, each.label_at, each.split_at or 0):
        return "it has too few columns"
    path, label = cells[each.path_at].strip(), unicodedata.normalize("NFC", cells[each.label_at].strip())
    if not path or not label:
        return "its path or its label is empty"
    if _CONTROL.search(label):
        return "its label contains control characters"
    split = each.split
    if each.split_at is not None:
        word = cells[each.split_at]
        split = split_from_word(word)
        if split is None:
            return f"its split is neither train nor val: {word[:20]!r}"
    return _Row(path=path, label=label, split=split)


class _RowsByFile:
    """Collects what the rows state about each file of the archive."""

    def __init__(self, files: Sequence[ArchivedFile]) -> None:
        self._files = {file.name: file for file in files}
        self.by_file: dict[str, tuple[str, str | None]] = {}  # name -> label and split
        self.bad_rows: dict[str, str] = {}
        self._missing: dict[str, None] = {}
        self._conflicting: dict[str, None] = {}

    def add(self, row: _Row, *, folder: str) -> None:
        """Adds a row of a list in `folder`."""
        path = unicodedata.normalize("NFC", row.path.replace("\\", "/"))
        names = (posixpath.normpath(posixpath.join(folder, path)), posixpath.normpath(path))
        name = next((name for name in names if name in self._files), None)
        if name is None:
            self._missing[row.path] = None
            return
        earlier = self.by_file.setdefault(name, (row.label, row.split))
        if earlier != (row.label, row.split):
            self._conflicting[name] = None

    def settled(self) -> tuple[list[tuple[ArchivedFile, str, str | None]], list[Finding]]:
        """Returns each listed file with its label and split, and the findings about the other rows."""
        listed = [
            (self._files[name], label, split)
            for name, (label, split) in sorted(self.by_file.items())
            if name not in self._conflicting
        ]
        findings = []
        if self.bad_rows:
            where, reason = next(iter(self.bad_rows.items()))
            text = f"{counted(len(self.bad_rows), 'row')} left out. The first, {where}: {reason}."
            findings.append(finding("error", "bad_rows", text, self.bad_rows))
        if self._missing:
            text = f"{counted(len(self._missing), 'listed file')} not found in the archive."
            findings.append(finding("error", "missing_files", text, self._missing))
        if self._conflicting:
            text = f"{counted(len(self._conflicting), 'file')} left out: listed with several labels or splits."
            findings.append(finding("error", "conflicting_rows", text, self._conflicting))
        return listed, findings


CSV_LIST = Format(name="csv", task="classification", expected=_EXPECTED, fits=_fits, read=_read)
