"""Finds out what the columns of a table mean: which one names the images, which ones state category and split.

The usual headers are known. Where several columns could name the images, the archive decides: the column whose cells
find images is the right one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.formats.file_names import FileNames, split_in_word, stem_of
from workers.datasets.formats.reading import split_from_word
from workers.datasets.formats.table import Cells, Table

_PATHS = (
    *("path", "file_name", "filename", "file", "filepath", "file_path", "filepaths", "files", "image_path"),
    *("imagepath", "image_name", "imagename", "image_file", "image_filename", "img_path", "img_name", "relative_path"),
    *(
        "image",
        "img",
        "images",
        "picture",
        "photo",
        "image_id",
        "img_id",
        "imageid",
        "id",
        "id_code",
        "file_id",
        "name",
    ),
)
_CERTAIN_PATHS = _PATHS[: _PATHS.index("image")]  # a table with these lists files, even if none of them is found
_LABELS = (
    *("label", "class", "category", "class_name", "classname", "label_name", "category_name", "labels", "classes"),
    *("target", "species", "breed", "diagnosis", "dx", "class_id", "label_id", "category_id", "class_label"),
    *("classid", "labelid"),
)
_SPLITS = ("split", "subset", "partition", "data_set", "set", "usage")
_BOXES = re.compile(
    r"bbox.*|box|boxes|[xy]_?(min|max)|[xy][12]|.*_(x|y)_?min|objects|x|y|left|top|.*rle.*|encoded_?pixels"
)
_GROUP = ("group", "group_id")
_SEVERAL = ("tags", "attributes", "attribute_ids")  # headers of columns with several categories
_SEPARATORS = ("|", ";", ",", " ")
_NO = ("0", "0.0", "-1", "-1.0", "false", "")
_YES = ("1", "1.0", "true")
_SAMPLE_ROWS = 1000
_FOUND_ROWS = 100  # rows whose cells are looked up
_FRACTION = re.compile(r"-?\d*\.\d+(e-?\d+)?")
_SEVERAL_SHARE = 0.05  # of the rows may mark several categories by mistake


@dataclass(frozen=True, kw_only=True, slots=True)
class ListColumns:
    """The places of the columns in a row."""

    path_at: int
    label_at: int | None  # None: one column per category, with a 1 in the row's category
    one_hot_at: tuple[int, ...] = ()
    split_at: int | None = None
    group_at: int | None = None  # images of one group stay in one split
    is_multi_label: bool = False  # the rows state several categories per image


def list_columns(table: Table, names: FileNames) -> ListColumns | None:
    """Returns the columns of a table that states the category of each image, or None if it states something else.

    names: the images of the archive.
    """
    columns = table.columns
    if any(_BOXES.fullmatch(column) for column in columns):
        return None
    sample = table.sample(_SAMPLE_ROWS)
    label_at = label_column(table)
    path_at = path_column(table, sample, names, besides=label_at)
    if path_at is None:
        return None
    split_at = _split_column(columns, sample)
    group_at = next((at for at, column in enumerate(columns) if column in _GROUP and at != path_at), None)
    others = [at for at in range(len(columns)) if at not in (path_at, split_at, group_at)]
    if label_at is None and _is_category(others, columns, sample):
        label_at = others[0]
    if label_at is not None:
        several = columns[label_at] in _SEVERAL or _has_several([_cell(cells, label_at) for cells in sample])
        return ListColumns(
            path_at=path_at, label_at=label_at, split_at=split_at, group_at=group_at, is_multi_label=several
        )
    several_at = next((at for at in others if columns[at] in _SEVERAL), None)
    if several_at is not None:
        return ListColumns(
            path_at=path_at, label_at=several_at, split_at=split_at, group_at=group_at, is_multi_label=True
        )
    one_hot = tuple(at for at in others if _is_mark([_cell(cells, at) for cells in sample]))
    if len(one_hot) < 2:
        return None
    marked = [sum(is_marked(_cell(cells, at)) is True for at in one_hot) for cells in sample]
    return ListColumns(
        path_at=path_at,
        label_at=None,
        one_hot_at=one_hot,
        split_at=split_at,
        group_at=group_at,
        is_multi_label=sum(count > 1 for count in marked) > _SEVERAL_SHARE * len(marked),
    )


def label_column(table: Table) -> int | None:
    """Returns the column whose header says that it states the category."""
    return next((table.columns.index(label) for label in _LABELS if label in table.columns), None)


def path_column(table: Table, sample: Sequence[Cells], names: FileNames, *, besides: int | None = None) -> int | None:
    """Returns the column that names the images: the one whose cells find most, else one whose header is certain."""
    columns = table.columns
    candidates = [columns.index(column) for column in _PATHS if column in columns and columns.index(column) != besides]
    near, split = table.file.name.rpartition("/")[0], split_of_list(table.file)

    def found(at: int) -> int:
        rows = sample[:_FOUND_ROWS]
        return sum(find_image(names, _cell(cells, at), near=near, split=split) is not None for cells in rows)

    best = max(candidates, key=found, default=None)
    if best is not None and found(best):
        return best
    return next((at for at in candidates if columns[at] in _CERTAIN_PATHS), None)


def find_image(names: FileNames, written: str, *, near: str, split: str | None) -> ArchivedFile | None:
    """Finds the image that a cell names, with or without a suffix."""
    if not written.strip():
        return None
    return names.find(written, near=near, split=split)


def split_of_list(file: ArchivedFile) -> str | None:
    """Returns the split in the name of a list: `train.csv`, `trainLabels.csv`, `labels_val.csv`."""
    return split_in_word(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", stem_of(file.name)))


def is_marked(cell: str) -> bool | None:
    """Returns True for a 1 in a column of a category, False for a 0, None for anything else."""
    word = cell.strip().casefold()
    return True if word in _YES else False if word in _NO else None


def _is_mark(cells: Sequence[str]) -> bool:
    marks = {is_marked(cell) for cell in cells}
    return None not in marks and any(cell.strip() for cell in cells)


def _split_column(columns: Sequence[str], sample: Sequence[Cells]) -> int | None:
    for column in _SPLITS:
        if column in columns:
            at = columns.index(column)
            words = [word for cells in sample if (word := _cell(cells, at).strip())]
            if column == "split" or (words and all(split_from_word(word) for word in words)):
                return at
    return None


def _is_category(others: Sequence[int], columns: Sequence[str], sample: Sequence[Cells]) -> bool:
    """Returns True if the one other column of a table has a few values that repeat: `id,breed`, but not `id,price`."""
    if len(others) != 1 or columns[others[0]] in _SEVERAL:
        return False
    values = [value for cells in sample if (value := _cell(cells, others[0]).strip())]
    return 2 <= len(set(values)) <= len(values) / 2 and not any(_FRACTION.fullmatch(value) for value in values)


def _has_several(values: Sequence[str]) -> bool:
    """Returns True if the values combine other values: `scab rust`, where `scab` and `rust` stand alone elsewhere."""
    distinct = set(values)
    for separator in _SEPARATORS:
        combined = [value for value in values if separator in value.strip()]
        parts = [[part.strip() for part in value.split(separator)] for value in combined]
        if combined and sum(all(part in distinct for part in each) for each in parts) * 2 >= len(combined):
            return True
    return False


def _cell(cells: Cells, at: int) -> str:
    return cells[at] if at < len(cells) else ""
