"""labelme: one JSON file per image with polygons, rectangles and circles in pixels.

Polygons with the same label and `group_id` are parts of one object. Points and lines are not read.
Source: github.com/wkentaro/labelme, "labelme/label_file.py".
"""

from __future__ import annotations

import math
import mmap
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from models.masks.coco_masks import Polygon
from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.formats.annotation import AnnotatedObject, clean_label
from workers.datasets.formats.file_names import stem_of
from workers.datasets.formats.json_values import BadJsonFile, load_json, numbers_of, size_of, text_of
from workers.datasets.formats.object_collector import ObjectCollector
from workers.datasets.formats.reading import Format, Reading, unusable
from workers.datasets.formats.rotated_boxes import Point, box_around, ellipse_outline

_EXPECTED = "images and one JSON file of labelme per image, with `shapes` and `imagePath`"
_MAX_BYTES = 128 * 2**20  # `imageData` repeats the image
_REGIONS = ("polygon", "rectangle", "circle")


def _fits(files: Sequence[ArchivedFile]) -> bool:
    return any(_is_labelme(file) for file in files)


def _is_labelme(file: ArchivedFile) -> bool:
    if not file.name.lower().endswith(".json") or not file.head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return False
    with file.path.open("rb") as content, mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(b'"shapes"') >= 0 and data.find(b'"imagePath"') >= 0


def _read(files: Sequence[ArchivedFile]) -> Reading:
    found = [file for file in files if _is_labelme(file)]
    if not found:
        raise unusable(
            "The archive has no JSON file of labelme.", hint=f"Expected: {_EXPECTED}.", code="no_annotations"
        )
    collector = ObjectCollector(files, expected=_EXPECTED)
    for file in found:
        _read_file(file, collector)
    return collector.reading("labelme", used={file.name for file in found})


def _read_file(file: ArchivedFile, collector: ObjectCollector) -> None:
    near = file.name.rpartition("/")[0]
    named = collector.names.find(stem_of(file.name), near=near)
    try:
        content = load_json(file, max_bytes=_MAX_BYTES)
    except BadJsonFile as error:
        collector.leave_out(file.name, str(error), image=named)
        return
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list):
        collector.leave_out(file.name, "it has no list of `shapes`", image=named)
        return
    written = text_of(content.get("imagePath"))
    image = (collector.names.find(written, near=near) if written else None) or named
    image = image or collector.find(written or stem_of(file.name), near=near)
    if image is None:
        return
    collector.add(
        image,
        _objects(shapes, file, image, collector),
        size=size_of(content.get("imageWidth"), content.get("imageHeight")),
    )


def _objects(
    shapes: Sequence[Any], file: ArchivedFile, image: ArchivedFile, collector: ObjectCollector
) -> list[AnnotatedObject]:
    objects = []
    parts: defaultdict[tuple[str, str], list[Polygon]] = defaultdict(list)  # label, group -> polygons
    for number, shape in enumerate(shapes, start=1):
        where = f"{file.name}: shape {number}"
        fields = shape if isinstance(shape, dict) else {}
        kind, label = text_of(fields.get("shape_type")) or "polygon", clean_label(text_of(fields.get("label")))
        if kind not in _REGIONS and fields:
            collector.ignore_shape(kind[:40])
            continue
        points = _points(fields.get("points"))
        if not label or points is None or len(points) < (3 if kind == "polygon" else 2):
            collector.leave_out(where, "its label or its points are missing or invalid", image=image)
            continue
        group = text_of(fields.get("group_id"))
        if kind == "polygon" and group:
            parts[label, group].append([value for point in points for value in point])
        else:
            objects.append(_object(kind, label, points, where))
    for (label, group), outline in parts.items():
        objects.append(AnnotatedObject(label=label, where=f"{file.name}: group {group}", outline=tuple(outline)))
    return objects


def _object(kind: str, label: str, points: Sequence[Point], where: str) -> AnnotatedObject:
    if kind == "rectangle":
        return AnnotatedObject(label=label, where=where, box=box_around(points))
    if kind == "circle":
        radius = math.dist(points[0], points[1])
        return AnnotatedObject(label=label, where=where, outline=(ellipse_outline(points[0], radius, radius),))
    return AnnotatedObject(label=label, where=where, outline=([value for point in points for value in point],))


def _points(written: Any) -> list[Point] | None:
    if not isinstance(written, list):
        return None
    pairs = [numbers_of(point) for point in written]
    points = [(pair[0], pair[1]) for pair in pairs if pair is not None and len(pair) == 2]
    return points if len(points) == len(written) else None


LABELME = Format(name="labelme", task="detection", expected=_EXPECTED, fits=_fits, read=_read)
