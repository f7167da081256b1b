"""Hugging Face's `metadata.jsonl` with objects: `{"file_name": "1.png", "objects": {"bbox": […], "categories": […]}}`.

A box is x, y, width, height in pixels, as in COCO. A table that states one label per image is read by `csv_list.py`.
Source: huggingface.co/docs/datasets, "Create an image dataset".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.formats.annotation import AnnotatedObject, clean_label
from workers.datasets.formats.file_names import split_in_path
from workers.datasets.formats.json_values import numbers_of, text_of
from workers.datasets.formats.object_collector import ObjectCollector
from workers.datasets.formats.reading import Format, Reading, unusable
from workers.datasets.formats.table import Table, parsed_line, tables

_EXPECTED = "images and Hugging Face's metadata.jsonl with a file_name and objects per line"
_LABELS = ("categories", "category", "labels", "label")
_MAX_BYTES = 64 * 2**20


def _fits(files: Sequence[ArchivedFile]) -> bool:
    return bool(_lists(files))


def _lists(files: Sequence[ArchivedFile]) -> list[Table]:
    return [
        table
        for table in tables([file for file in files if file.name.lower().endswith((".jsonl", ".ndjson"))])
        if "file_name" in table.headers and "objects" in table.headers
    ]


def _read(files: Sequence[ArchivedFile]) -> Reading:
    lists = _lists(files)
    if not lists:
        raise unusable("The archive has no metadata.jsonl.", hint=f"Expected: {_EXPECTED}.", code="no_list")
    collector = ObjectCollector(files, expected=_EXPECTED)
    for table in lists:
        for where, entry in _entries(table.file, table.encoding):
            _read_entry(entry, where, collector, near=table.file.name.rpartition("/")[0])
    return collector.reading("hugging_face", used={table.file.name for table in lists})


def _entries(file: ArchivedFile, encoding: str) -> Iterator[tuple[str, dict[str, Any] | None]]:
    if file.size_bytes > _MAX_BYTES:
        raise unusable(
            f"{file.name} has {file.size_bytes:,} bytes, but may have at most {_MAX_BYTES:,}.",
            hint="Write one file per split.",
            code="list_too_large",
            files=[file.name],
        )
    with file.path.open(encoding=encoding, errors="replace") as content:
        for number, line in enumerate(content, start=1):
            if line.strip():
                yield f"{file.name}:{number}", parsed_line(line)


def _read_entry(entry: dict[str, Any] | None, where: str, collector: ObjectCollector, *, near: str) -> None:
    name = entry.get("file_name") if entry is not None else None
    if entry is None or not isinstance(name, str) or not name.strip():
        collector.leave_out(where, "it is not a JSON object with a file_name")
        return
    image = collector.find(name, near=near, split=split_in_path(near + "/"))
    if image is None:
        return
    objects = _objects(entry.get("objects"), where)
    if isinstance(objects, str):
        collector.leave_out(where, objects, image=image)
    else:
        collector.add(image, objects)


def _objects(written: Any, where: str) -> list[AnnotatedObject] | str:
    """Returns the objects of an image, or the reason why they cannot be read."""
    if written is None:
        return []
    boxes = written.get("bbox") if isinstance(written, dict) else None
    labels = next((written[key] for key in _LABELS if key in written), None) if isinstance(written, dict) else None
    if not isinstance(boxes, list) or not isinstance(labels, list) or len(boxes) != len(labels):
        return "its `objects` are not lists `bbox` and `categories` of equal length"
    found = []
    for box, label in zip(boxes, labels, strict=True):
        numbers, name = numbers_of(box), clean_label(text_of(label))
        if numbers is None or len(numbers) != 4:
            return "a `bbox` does not have four numbers"
        if not name:
            return "a category is neither a name nor a number"
        x, y, width, height = numbers
        found.append(AnnotatedObject(label=name, where=where, box=(x, y, x + width, y + height)))
    return found


HUGGING_FACE = Format(name="hugging_face", task="detection", expected=_EXPECTED, fits=_fits, read=_read)
