"""A CSV file with one box per row, as TensorFlow's object detection tutorials and Roboflow write it.

The columns are `filename`, `class` and the corners `xmin`, `ymin`, `xmax`, `ymax`, in pixels or in fractions of the
image; optionally `width` and `height` of the image. makesense.ai writes `bbox_x`, `bbox_y`, `bbox_width` and
`bbox_height`. A row without a box marks an image of background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from models.masks.coco_masks import Box
from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.formats.annotation import AnnotatedObject, clean_label
from workers.datasets.formats.csv_columns import label_column, path_column, split_of_list
from workers.datasets.formats.file_names import FileNames, split_in_path
from workers.datasets.formats.json_values import numbers_of, size_of
from workers.datasets.formats.object_collector import ObjectCollector
from workers.datasets.formats.reading import Format, Reading, sort_files, unusable
from workers.datasets.formats.table import Cells, Table, tables

_EXPECTED = "images and a CSV file of boxes with the columns filename, class, xmin, ymin, xmax, ymax"
_CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("x1", "y1", "x2", "y2"),
    ("bbox_x", "bbox_y", "bbox_width", "bbox_height"),
)
_SIZES = (("width", "height"), ("image_width", "image_height"), ("img_width", "img_height"))
_SAMPLE_ROWS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class _BoxTable:
    table: Table
    path_at: int
    label_at: int
    box_at: tuple[int, ...]
    size_at: tuple[int, ...]  # empty: the table does not state the sizes of the images
    has_sides: bool  # width and height follow the first corner, not another corner
    is_relative: bool


def _fits(files: Sequence[ArchivedFile]) -> bool:
    return bool(_box_tables(files))


def _read(files: Sequence[ArchivedFile]) -> Reading:
    found = _box_tables(files)
    if not found:
        raise unusable(
            "The archive has no CSV file of boxes.", hint=f"Expected: {_EXPECTED}.", code="no_list", files=()
        )
    collector = ObjectCollector(files, expected=_EXPECTED)
    for each in found:
        _read_table(each, collector)
    return collector.reading("csv_boxes", used={each.table.file.name for each in found})


def _box_tables(files: Sequence[ArchivedFile]) -> list[_BoxTable]:
    found = tables(files)
    names = FileNames(sort_files(files).images if found else ())
    return [each for table in found if (each := _box_table(table, names)) is not None]


def _box_table(table: Table, names: FileNames) -> _BoxTable | None:
    corners = next((each for each in _CORNERS if set(each) <= set(table.columns)), None)
    label_at = label_column(table)
    if corners is None or label_at is None:
        return None
    sample = table.sample(_SAMPLE_ROWS)
    path_at = path_column(table, sample, names, besides=label_at)
    if path_at is None:
        return None
    box_at = tuple(table.columns.index(column) for column in corners)
    sizes = next((each for each in _SIZES if set(each) <= set(table.columns)), ())
    return _BoxTable(
        table=table,
        path_at=path_at,
        label_at=label_at,
        box_at=box_at,
        size_at=tuple(table.columns.index(column) for column in sizes),
        has_sides=corners[0] == "bbox_x",
        is_relative=_are_fractions([_numbers(cells, box_at) for cells in sample]),
    )


def _are_fractions(boxes: Sequence[Sequence[float] | None]) -> bool:
    values = [value for box in boxes if box is not None for value in box]
    return bool(values) and max(values) <= 1.0 and min(values) >= 0.0


def _read_table(each: _BoxTable, collector: ObjectCollector) -> None:
    file = each.table.file
    near, split = file.name.rpartition("/")[0], split_of_list(file) or split_in_path(file.name)
    for line, cells in each.table.rows():
        where = f"{file.name}:{line}"
        if cells is None or len(cells) <= max(each.path_at, each.label_at, *each.box_at, *each.size_at):
            collector.leave_out(where, "it has too few columns")
            continue
        image = collector.find(cells[each.path_at], near=near, split=split)
        if image is None:
            continue
        read = _object(each, cells, where)
        if isinstance(read, str):
            collector.leave_out(where, read, image=image)
            continue
        size = size_of(*(cells[at] for at in each.size_at)) if each.size_at and not each.is_relative else None
        collector.add(image, read, size=size, is_relative=each.is_relative)


def _object(each: _BoxTable, cells: Cells, where: str) -> tuple[AnnotatedObject, ...] | str:
    """Returns the object of a row, nothing for an image of background, or the reason why the row is invalid."""
    if not any(cells[at].strip() for at in each.box_at):
        return ()
    label, numbers = clean_label(cells[each.label_at]), _numbers(cells, each.box_at)
    if not label:
        return "its label is empty"
    if numbers is None:
        return "its box does not have four numbers"
    return (AnnotatedObject(label=label, where=where, box=_box(numbers, has_sides=each.has_sides)),)


def _box(numbers: Sequence[float], *, has_sides: bool) -> Box:
    x_min, y_min, third, fourth = numbers
    return (x_min, y_min, x_min + third, y_min + fourth) if has_sides else (x_min, y_min, third, fourth)


def _numbers(cells: Cells, places: Sequence[int]) -> list[float] | None:
    return numbers_of([cells[at] for at in places]) if len(cells) > max(places) else None


CSV_BOXES = Format(name="csv_boxes", task="detection", expected=_EXPECTED, fits=_fits, read=_read)
