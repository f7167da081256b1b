"""CVAT for images 1.1: one XML file with the boxes, polygons, ellipses and masks of all images, in pixels.

Points, lines, cuboids, skeletons and tags are not read. The XML of videos, with tracks, is refused with the way out.
Source: docs.cvat.ai, "XML annotation format".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate

import numpy as np

from models.masks.coco_masks import encode_mask
from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.formats.annotation import AnnotatedObject, RunLengths, clean_label
from workers.datasets.formats.file_names import split_in_path
from workers.datasets.formats.json_values import number_of, numbers_of, size_of
from workers.datasets.formats.object_collector import ObjectCollector
from workers.datasets.formats.reading import Format, Reading, split_from_word, unusable
from workers.datasets.formats.rotated_boxes import box_around, ellipse_outline, rotated_corners
from workers.datasets.formats.xml_tree import BadXml, Element, parse_xml

_EXPECTED = "CVAT for images: images and annotations.xml with <image> elements"
_MAX_BYTES = 128 * 2**20
_MAX_PIXELS = 2**28
_ROOT = re.compile(rb"<annotations[\s>]")
_HEAD_BYTES = 4096


def _fits(files: Sequence[ArchivedFile]) -> bool:
    return any(_is_cvat(file) for file in files)


def _is_cvat(file: ArchivedFile) -> bool:
    if not file.name.lower().endswith(".xml"):
        return False
    with file.path.open("rb") as content:
        return _ROOT.search(content.read(_HEAD_BYTES)) is not None


def _read(files: Sequence[ArchivedFile]) -> Reading:
    lists = [file for file in files if _is_cvat(file)]
    if not lists:
        raise unusable("The archive has no XML file of CVAT.", hint=f"Expected: {_EXPECTED}.", code="no_annotations")
    collector = ObjectCollector(files, expected=_EXPECTED)
    for file in lists:
        root = _parsed(file)
        if next(root.all("track"), None) is not None:
            raise unusable(
                f"{file.name} is CVAT's XML for videos: it has tracks instead of images.",
                hint="In CVAT, export “CVAT for images 1.1” or COCO, with the images.",
                code="other_format",
                files=[file.name],
            )
        for element in root.all("image"):
            _read_image(element, file, collector)
    return collector.reading("cvat", used={file.name for file in lists})


def _parsed(file: ArchivedFile) -> Element:
    """Returns the root of the file. Raises UnusableDataset."""
    if file.size_bytes > _MAX_BYTES:
        raise unusable(
            f"{file.name} has {file.size_bytes:,} bytes, but CVAT's XML may have at most {_MAX_BYTES:,}.",
            hint="Export one file per task, or COCO.",
            code="annotations_too_large",
            files=[file.name],
        )
    try:
        return parse_xml(file.path.read_bytes())
    except BadXml as error:
        where = f"{file.name}:{error.line}"
        raise unusable(
            f"{where}: the XML is broken: {error}.",
            hint="Open the file in an editor at this line. If the file ends early, export it again.",
            code="broken_xml",
            files=[where],
        ) from error


def _read_image(element: Element, file: ArchivedFile, collector: ObjectCollector) -> None:
    written, where = element.attributes.get("name", ""), f"{file.name}:{element.line}"
    if not written.strip():
        collector.leave_out(where, "an <image> has no name")
        return
    image = collector.find(written, near=file.name.rpartition("/")[0])
    if image is None:
        return
    size = size_of(element.attributes.get("width"), element.attributes.get("height"))
    objects = []
    for shape in element.children:
        where = f"{file.name}:{shape.line}"
        if shape.tag not in _SHAPES:
            collector.ignore_shape(shape.tag[:40])
            continue
        label = clean_label(shape.attributes.get("label", ""))
        read = _SHAPES[shape.tag](shape.attributes, label, where, size) if label else "it has no label"
        if isinstance(read, str):
            collector.leave_out(where, read, image=image)
        else:
            objects.append(read)
            if number_of(shape.attributes.get("rotation", "0")) and shape.tag == "box":
                collector.note_rotated(where)
    split = split_from_word(element.attributes.get("subset", "")) or split_in_path(image.name)
    collector.add(image, objects, size=size, split=split)


_Size = tuple[int, int] | None
_Attributes = Mapping[str, str]


def _box(shape: _Attributes, label: str, where: str, _: _Size) -> AnnotatedObject | str:
    numbers = numbers_of([shape.get(key) for key in ("xtl", "ytl", "xbr", "ybr")])
    degrees = number_of(shape.get("rotation", "0"))
    if numbers is None or degrees is None:
        return "a <box> does not have four numbers"
    x_min, y_min, x_max, y_max = numbers
    centre = ((x_min + x_max) / 2, (y_min + y_max) / 2)
    box = (x_min, y_min, x_max, y_max)
    return AnnotatedObject(
        label=label, where=where, box=box_around(rotated_corners(box, degrees, centre)) if degrees else box
    )


def _polygon(shape: _Attributes, label: str, where: str, _: _Size) -> AnnotatedObject | str:
    pairs = [numbers_of(pair.split(",")) for pair in shape.get("points", "").split(";")]
    outline = [value for pair in pairs if pair is not None and len(pair) == 2 for value in pair]
    if len(outline) != 2 * len(pairs) or len(pairs) < 3:
        return "a <polygon> does not have three or more pairs of numbers"
    return AnnotatedObject(label=label, where=where, outline=(outline,))


def _ellipse(shape: _Attributes, label: str, where: str, _: _Size) -> AnnotatedObject | str:
    numbers = numbers_of([shape.get(key) for key in ("cx", "cy", "rx", "ry")])
    if numbers is None or min(numbers[2:]) <= 0:
        return "an <ellipse> does not have a centre and two radii"
    centre_x, centre_y, radius_x, radius_y = numbers
    outline = ellipse_outline((centre_x, centre_y), radius_x, radius_y)
    degrees = number_of(shape.get("rotation", "0")) or 0.0
    turned = [
        value
        for x, y in zip(outline[::2], outline[1::2], strict=True)
        for value in rotated_corners((x, y, x, y), degrees, (centre_x, centre_y))[0]
    ]
    return AnnotatedObject(label=label, where=where, outline=(turned,))


def _mask(shape: _Attributes, label: str, where: str, size: _Size) -> AnnotatedObject | str:
    """Reads run lengths that go along the rows of the rectangle `left`, `top`, `width`, `height`, zeros first."""
    place = numbers_of([shape.get(key) for key in ("left", "top", "width", "height")])
    runs = numbers_of(shape.get("rle", "").split(","))
    if size is None or place is None or runs is None:
        return "a <mask> has no run lengths, or no rectangle"
    left, top, width, height = map(int, place)
    is_inside = min(left, top) >= 0 and min(width, height) > 0 and left + width <= size[0] and top + height <= size[1]
    if not is_inside or size[0] * size[1] > _MAX_PIXELS or min(runs) < 0 or sum(runs) != width * height:
        return "the run lengths of a <mask> do not fill its rectangle"
    ends = list(accumulate(map(int, runs)))
    if len(ends) < 2:
        return "a <mask> has no pixel"
    inside = np.zeros(width * height, dtype=np.uint8)
    for start, end in zip(ends[::2], ends[1::2], strict=False):
        inside[start:end] = 1
    whole = np.zeros((size[1], size[0]), dtype=np.uint8)
    whole[top : top + height, left : left + width] = inside.reshape(height, width)
    return AnnotatedObject(
        label=label, where=where, outline=RunLengths(width=size[0], height=size[1], counts=encode_mask(whole))
    )


_SHAPES: Mapping[str, Callable[[_Attributes, str, str, _Size], AnnotatedObject | str]] = {
    "box": _box,
    "polygon": _polygon,
    "ellipse": _ellipse,
    "mask": _mask,
}


CVAT_XML = Format(name="cvat", task="detection", expected=_EXPECTED, fits=_fits, read=_read)
