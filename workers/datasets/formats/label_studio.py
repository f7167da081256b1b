"""Label Studio: rectangles, polygons, ellipses and brushes, in percent of the upright image.

Several annotations of one image come from several people; the first is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.masks.coco_masks import encode_mask
from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.findings import counted, finding
from workers.datasets.formats.annotation import AnnotatedObject, RunLengths, clean_label
from workers.datasets.formats.json_values import number_of, numbers_of, size_of, text_of
from workers.datasets.formats.label_studio_brush import BrokenBrush, decode_brush
from workers.datasets.formats.label_studio_tasks import SHAPE_KEYS, StudioTask, find_image, is_export, read_tasks
from workers.datasets.formats.object_collector import ObjectCollector
from workers.datasets.formats.reading import Format, Reading, unusable
from workers.datasets.formats.rotated_boxes import box_around, ellipse_outline, rotated_corners

_EXPECTED = "images and the JSON export of Label Studio with rectangles, polygons or brushes"


def _fits(files: Sequence[ArchivedFile]) -> bool:
    return any(is_export(file, SHAPE_KEYS) for file in files)


def _read(files: Sequence[ArchivedFile]) -> Reading:
    lists = [file for file in files if is_export(file, SHAPE_KEYS)]
    if not lists:
        raise unusable(
            "The archive has no export of Label Studio.", hint=f"Expected: {_EXPECTED}.", code="no_annotations"
        )
    collector = ObjectCollector(files, expected=_EXPECTED)
    several: list[str] = []
    for file in lists:
        for task in read_tasks(file):
            _read_task(task, collector, near=file.name.rpartition("/")[0])
            several += [task.where] if task.annotations > 1 else []
    if several:
        text = f"{counted(len(several), 'image')} annotated by several people. The first annotation is used."
        collector.findings.append(finding("warning", "annotated_twice", text, several))
    return collector.reading("label_studio", used={file.name for file in lists})


def _read_task(task: StudioTask, collector: ObjectCollector, *, near: str) -> None:
    image = find_image(task, collector.names, near=near) if task.image else None
    if not task.image or not task.is_readable:
        collector.leave_out(task.where, "it names no image, or its annotation cannot be read", image=image)
        return
    image = image or collector.find(task.image, near=near)
    if image is None or not task.annotations:
        return  # an image without an annotation is reported as such: nobody has looked at it
    objects = []
    for result in task.results:
        value = result.get("value")
        kind = next((key for key in SHAPE_KEYS if isinstance(value, dict) and key in value), None)
        if kind is None:
            collector.ignore_shape(text_of(result.get("type"))[:40] or "result")
            continue
        assert isinstance(value, dict)
        labels = value[kind] if isinstance(value[kind], list) else []
        label = clean_label(text_of(labels[0])) if labels else ""
        read = _object(kind, value, result, label, task.where) if label else "a shape has no label"
        if isinstance(read, str):
            collector.leave_out(task.where, read, image=image)
        else:
            objects.append(read)
            if kind == "rectanglelabels" and number_of(value.get("rotation", 0)):
                collector.note_rotated(task.where)
    collector.add(image, objects, is_relative=True)


def _object(
    kind: str, value: Mapping[str, Any], result: Mapping[str, Any], label: str, where: str
) -> AnnotatedObject | str:
    """Returns the object with fractions of the image, or the reason why it is invalid."""
    size = size_of(result.get("original_width"), result.get("original_height"))
    if kind == "polygonlabels":
        points = value.get("points")
        pairs = [numbers_of(point) for point in points] if isinstance(points, list) else []
        outline = [number / 100 for pair in pairs if pair is not None and len(pair) == 2 for number in pair]
        if len(pairs) < 3 or len(outline) != 2 * len(pairs):
            return "a polygon does not have three or more pairs of numbers"
        return AnnotatedObject(label=label, where=where, outline=(outline,))
    if kind == "brushlabels":
        return _brush(value, size, label, where)
    keys = ("x", "y", "width", "height") if kind == "rectanglelabels" else ("x", "y", "radiusX", "radiusY")
    numbers = numbers_of([value.get(key) for key in keys])
    degrees = number_of(value.get("rotation", 0))
    if numbers is None or degrees is None or (degrees and size is None):
        return "a shape does not have four numbers, or it is rotated and `original_width` is missing"
    x, y, third, fourth = (number / 100 for number in numbers)
    if kind == "ellipselabels":
        return AnnotatedObject(label=label, where=where, outline=(ellipse_outline((x, y), third, fourth),))
    box = (x, y, x + third, y + fourth)
    if degrees and size is not None:  # it turns about its upper left corner, in pixels
        width, height = size
        in_pixels = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
        turned = box_around(rotated_corners(in_pixels, degrees, (in_pixels[0], in_pixels[1])))
        box = (turned[0] / width, turned[1] / height, turned[2] / width, turned[3] / height)
    return AnnotatedObject(label=label, where=where, box=box)


def _brush(value: Mapping[str, Any], size: tuple[int, int] | None, label: str, where: str) -> AnnotatedObject | str:
    if size is None or value.get("format", "rle") != "rle":
        return "a brush is not in the format `rle`, or `original_width` is missing"
    try:
        mask = decode_brush(value.get("rle"), width=size[0], height=size[1])
    except BrokenBrush as error:
        return str(error)
    counts = encode_mask(mask)
    return AnnotatedObject(label=label, where=where, outline=RunLengths(width=size[0], height=size[1], counts=counts))


LABEL_STUDIO = Format(name="label_studio", task="detection", expected=_EXPECTED, fits=_fits, read=_read)
