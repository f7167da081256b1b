"""Tables that list the images with their categories: a CSV file or JSON lines with the columns `path` and `label`.

`csv_columns.py` knows the usual headers of other tools, such as Kaggle's `id,label`, the `file_name,label` of Hugging
Face and one column per category. Images with the same text in the column
`group` stay in one split. Other columns are ignored. The split of a row comes from its column `split`, else
from the names of several lists (`train.csv` and `val.csv`), else from the folder of its image.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.dataset import Finding
from workers.datasets.findings import counted, finding
from workers.datasets.formats.csv_columns import ListColumns, find_image, is_marked, list_columns, split_of_list
from workers.datasets.formats.file_names import FileNames, split_in_path
from workers.datasets.formats.reading import (
    Format,
    Reading,
    leftover_findings,
    resolve_splits,
    sort_files,
    split_from_word,
    unusable,
)
from workers.datasets.formats.table import SUFFIXES, Cells, Table, tables

_EXPECTED = "images and a CSV file with the columns path and label, and optionally split (train or val)"
_HINT = (
    f"Expected: {_EXPECTED}. Each path is relative to the CSV file or to the root of the archive, or it is a name that "
    "only one image has."
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SUBMISSION = re.compile(r".*sample.?submission.*", re.IGNORECASE)  # Kaggle's example of an answer, with made-up labels


@dataclass(frozen=True, kw_only=True, slots=True)
class _List:
    """A table, what its columns mean, and the split of all its rows if its name states it."""

    table: Table
    columns: ListColumns
    split: str | None = None

    @property
    def name(self) -> str:
        return self.table.file.name


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """A valid row."""

    path: str
    label: str
    split: str | None
    group: str | None


def _fits(files: Sequence[ArchivedFile]) -> bool:
    return bool(_candidates(files))


def _read(files: Sequence[ArchivedFile]) -> Reading:
    sorted_files = sort_files(files)
    lists = _lists(files)
    rows = _RowsByFile(sorted_files.images)
    for each in lists:
        _refuse_multi_label(each)
        for row in _rows(each, rows.bad_rows):
            rows.add(row, each)
    listed, findings = rows.settled()
    unlisted = [image.name for image in sorted_files.images if image.name not in rows.by_file]
    if unlisted:
        text = f"{counted(len(unlisted), 'image')} left out: not in the CSV file."
        findings.append(finding("info", "unlisted_images", text, unlisted))
    findings += leftover_findings(sorted_files, used={each.name for each in lists})
    if not listed:
        raise unusable(
            f"No path in {', '.join(each.name for each in lists)} is a file of the archive.",
            hint=_HINT,
            code="no_images",
            findings=findings,
        )
    resolved, split_findings = resolve_splits(listed)
    grouped = (replace(each, group=rows.groups.get(each.file.name)) for each in resolved)
    return Reading(format="csv", files=tuple(grouped), findings=(*split_findings, *findings))


def _candidates(files: Sequence[ArchivedFile]) -> list[_List]:
    found = [table for table in tables(files) if not _SUBMISSION.fullmatch(posixpath.basename(table.file.name))]
    if not found:
        return []
    names = FileNames(sort_files(files).images)
    return [
        _List(table=table, columns=columns) for table in found if (columns := list_columns(table, names)) is not None
    ]


def _lists(files: Sequence[ArchivedFile]) -> list[_List]:
    """Returns the lists to read: one in all, or one per split."""
    lists = _candidates(files)
    if not lists:
        names = [file.name for file in files if file.name.lower().endswith(SUFFIXES)]
        reason = f"{', '.join(names[:3])} has other columns" if names else "it contains no CSV file"
        raise unusable(
            f"The archive has no CSV file with the columns path and label: {reason}.",
            hint=_HINT,
            code="no_list",
            files=names,
        )
    if len(lists) == 1:
        return lists
    lists = [_List(table=each.table, columns=each.columns, split=_split_by_name(each)) for each in lists]
    if any(each.columns.split_at is None and each.split is None for each in lists):
        names = [each.name for each in lists]
        raise unusable(
            f"Several CSV files list images: {', '.join(names[:5])}.",
            hint="Keep one of them, or name them train.csv and val.csv.",
            code="several_lists",
            files=names,
        )
    return lists


def _split_by_name(each: _List) -> str | None:
    return split_of_list(each.table.file) or split_in_path(each.name)


def _refuse_multi_label(each: _List) -> None:
    if each.columns.is_multi_label:
        raise unusable(
            f"{each.name} states several categories per image, but Fovea learns one category per image.",
            hint="Keep the rows with a single category, or post one dataset per category, with the labels yes and no.",
            code="multi_label",
            files=[each.name],
        )


def _rows(each: _List, bad_rows: dict[str, str]) -> Iterator[_Row]:
    """Yields the valid rows below the header. Adds the others to `bad_rows`: `labels.csv:12` -> the reason."""
    for line, cells in each.table.rows():
        row = "it is not a JSON object" if cells is None else _row(each, cells)
        if isinstance(row, _Row):
            yield row
        else:
            bad_rows[f"{each.name}:{line}"] = row


def _row(each: _List, cells: Cells) -> _Row | str:
    """Returns the row, or the reason why it is invalid."""
    at = each.columns
    if len(cells) <= max(at.path_at, at.label_at or 0, at.split_at or 0, at.group_at or 0, *at.one_hot_at):
        return "it has too few columns"
    label = cells[at.label_at] if at.label_at is not None else _marked_category(each, cells)
    if label is None:
        return "it does not mark exactly one category with a 1"
    path, label = cells[at.path_at].strip(), unicodedata.normalize("NFC", label.strip())
    if not path or not label:
        return "its path or its label is empty"
    if _CONTROL.search(label):
        return "its label contains control characters"
    split = each.split
    if at.split_at is not None:
        word = cells[at.split_at]
        split = split_from_word(word)
        if split is None:
            return f"its split is neither train nor val: {word[:20]!r}"
    group = cells[at.group_at].strip() if at.group_at is not None else ""
    return _Row(path=path, label=label, split=split, group=group or None)


def _marked_category(each: _List, cells: Cells) -> str | None:
    marks = {at: is_marked(cells[at]) for at in each.columns.one_hot_at}
    marked = [at for at, mark in marks.items() if mark]
    return each.table.headers[marked[0]] if len(marked) == 1 and None not in marks.values() else None


class _RowsByFile:
    """Collects what the rows state about each image of the archive."""

    def __init__(self, images: Sequence[ArchivedFile]) -> None:
        self._files = {file.name: file for file in images}
        self._names = FileNames(images)
        self.by_file: dict[str, tuple[str, str | None]] = {}  # name -> label and split
        self.groups: dict[str, str] = {}  # name -> group
        self.bad_rows: dict[str, str] = {}
        self._missing: dict[str, None] = {}
        self._conflicting: dict[str, None] = {}

    def add(self, row: _Row, each: _List) -> None:
        """Adds a row of a list."""
        preferred = row.split or split_of_list(each.table.file)
        image = find_image(self._names, row.path, near=posixpath.dirname(each.name), split=preferred)
        if image is None:
            self._missing[row.path] = None
            return
        earlier = self.by_file.setdefault(image.name, (row.label, row.split))
        if earlier != (row.label, row.split):
            self._conflicting[image.name] = None
        if row.group is not None:
            self.groups.setdefault(image.name, row.group)

    def settled(self) -> tuple[list[tuple[ArchivedFile, str, str | None]], list[Finding]]:
        """Returns each listed file with its label and split, and the findings about the other rows."""
        kept = [(name, *stated) for name, stated in sorted(self.by_file.items()) if name not in self._conflicting]
        if all(split is None and split_in_path(name) is not None for name, _, split in kept):
            kept = [(name, label, split_in_path(name)) for name, label, _ in kept]
        listed = [(self._files[name], label, split) for name, label, split in kept]
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
