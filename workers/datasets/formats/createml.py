"""CreateML: a JSON list of images with boxes, whose `x` and `y` are the centre, in pixels.

Source: developer.apple.com, "Building an object detector data source".
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.formats.annotation import AnnotatedObject, clean_label
from workers.datasets.formats.file_names import split_in_path, split_in_word, stem_of
from workers.datasets.formats.json_values import BadJsonFile, load_json, numbers_of, text_of
from workers.datasets.formats.object_collector import ObjectCollector
from workers.datasets.formats.reading import Format, Reading, unusable

_EXPECTED = "images and CreateML's _annotations.createml.json, a list of images with `annotations` and `coordinates`"
_MAX_BYTES = 256 * 2**20


def _fits(files: Sequence[ArchivedFile]) -> bool:
    return any(_is_createml(file) for file in files)


def _is_createml(file: ArchivedFile) -> bool:
    if not file.name.lower().endswith(".json") or not file.head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"["):
        return False
    with file.path.open("rb") as content, mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(b'"coordinates"') >= 0 and data.find(b'"image') >= 0


def _read(files: Sequence[ArchivedFile]) -> Reading:
    lists = [file for file in files if _is_createml(file)]
    if not lists:
        raise unusable(
            "The archive has no JSON file of CreateML.", hint=f"Expected: {_EXPECTED}.", code="no_annotations"
        )
    collector = ObjectCollector(files, expected=_EXPECTED)
    for file in lists:
        try:
            content = load_json(file, max_bytes=_MAX_BYTES)
        except BadJsonFile as error:
            raise unusable(
                f"{file.name} cannot be read: {error}.",
                hint="If the file ends early, export it again.",
                code="broken_json",
                files=[file.name],
            ) from error
        for number, entry in enumerate(content if isinstance(content, list) else [None], start=1):
            _read_entry(entry if isinstance(entry, dict) else {}, f"{file.name}: entry {number}", file, collector)
    return collector.reading("createml", used={file.name for file in lists})


def _read_entry(entry: dict[str, Any], where: str, file: ArchivedFile, collector: ObjectCollector) -> None:
    written = text_of(entry.get("image")) or text_of(entry.get("imagefilename"))
    if not written:
        collector.leave_out(where, "it names no `image`")
        return
    split = split_in_path(file.name) or split_in_word(stem_of(file.name))
    image = collector.find(written, near=file.name.rpartition("/")[0], split=split)
    if image is None:
        return
    boxes = entry.get("annotations", entry.get("annotation"))
    objects = []
    for box in boxes if isinstance(boxes, list) else [None]:
        read = _object(box if isinstance(box, dict) else {}, where)
        if isinstance(read, str):
            collector.leave_out(where, read, image=image)
        else:
            objects.append(read)
    collector.add(image, objects)


def _object(box: dict[str, Any], where: str) -> AnnotatedObject | str:
    """Returns the object, or the reason why it is invalid."""
    label, coordinates = clean_label(text_of(box.get("label"))), box.get("coordinates")
    fields = coordinates if isinstance(coordinates, dict) else {}
    numbers = numbers_of([fields.get(key) for key in ("x", "y", "width", "height")])
    if not label or numbers is None:
        return "an annotation has no `label`, or its `coordinates` are not four numbers"
    x, y, width, height = numbers
    return AnnotatedObject(label=label, where=where, box=(x - width / 2, y - height / 2, x + width / 2, y + height / 2))


CREATEML = Format(name="createml", task="detection", expected=_EXPECTED, fits=_fits, read=_read)
