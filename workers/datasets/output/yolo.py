"""Writes a dataset in YOLO format: outlines if every object has a mask, else boxes.

YOLO has neither crowds nor difficult objects: crowds are left out, and difficult objects become ordinary ones.
"""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from models.masks.coco_masks import decode_mask, joined_polygon, polygons_of_mask
from workers.datasets.dataset import DatasetImage, DatasetInfo, DatasetObject


def yolo_config(info: DatasetInfo) -> bytes:
    """The content of `data.yaml`."""
    content: dict[str, object] = {split: f"images/{split}" for split in info.splits}
    content["names"] = dict(enumerate(info.categories))
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode()


def yolo_lines(image: DatasetImage, *, has_masks: bool) -> Iterator[bytes]:
    """Yields the lines of the label file of an image."""
    for each in image.objects:
        if not each.is_crowd:
            numbers = _outline(each, image) if has_masks else _box(each, image)
            yield f"{each.category} {' '.join(f'{number:.9g}' for number in numbers)}\n".encode()


def _box(each: DatasetObject, image: DatasetImage) -> list[float]:
    """Centre, width and height of the box, as fractions of the image."""
    x_min, y_min, x_max, y_max = each.box
    width, height = image.width, image.height
    return [
        (x_min + x_max) / 2 / width,
        (y_min + y_max) / 2 / height,
        (x_max - x_min) / width,
        (y_max - y_min) / height,
    ]


def _outline(each: DatasetObject, image: DatasetImage) -> list[float]:
    """The outline of all parts of the object, joined by lines without width; fractions of the image."""
    assert each.mask is not None
    polygon = joined_polygon(polygons_of_mask(decode_mask(each.mask, image.height, image.width)))
    sides = (image.width, image.height)
    return [value / sides[position % 2] for position, value in enumerate(polygon)]
