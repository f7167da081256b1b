"""Writes a split as a COCO file. Difficult objects get `ignore`: 1.

Masks become uncompressed run lengths: these are exact, and pycocotools, torchvision's wrapper and datumaro read them.
torchvision's wrapper fails on compressed ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from models.masks.coco_masks import area_of_mask, run_lengths
from workers.datasets.dataset import DatasetImage, DatasetInfo, DatasetObject


def coco_json(info: DatasetInfo, images: Callable[[], Iterator[DatasetImage]]) -> Iterator[bytes]:
    """Yields the file in pieces, with one entry per line. `images` returns a new iterator over the split."""
    about = {"description": f"{info.name}/{info.version}", "date_created": info.created_at.isoformat()}
    yield f'{{"info": {json.dumps(about)},\n"categories": ['.encode()
    yield from _entries({"id": number, "name": name} for number, name in enumerate(info.categories, start=1))
    yield b'],\n"images": ['
    yield from _entries(_image(number, image) for number, image in enumerate(images(), start=1))
    yield b'],\n"annotations": ['
    yield from _entries(_annotations(images()))
    yield b"]}\n"


def _entries(entries: Iterator[dict[str, object]]) -> Iterator[bytes]:
    separator = "\n"
    for entry in entries:
        yield (separator + json.dumps(entry)).encode()
        separator = ",\n"


def _image(number: int, image: DatasetImage) -> dict[str, object]:
    return {
        "id": number,
        "file_name": image.path.partition("/")[2],
        "width": image.width,
        "height": image.height,
    }


def _annotations(images: Iterator[DatasetImage]) -> Iterator[dict[str, object]]:
    number = 0
    for image_number, image in enumerate(images, start=1):
        for each in image.objects:
            number += 1
            yield {"id": number, "image_id": image_number, **_object(each, image)}


def _object(each: DatasetObject, image: DatasetImage) -> dict[str, object]:
    x_min, y_min, x_max, y_max = each.box
    width, height = round(x_max - x_min, 3), round(y_max - y_min, 3)
    entry: dict[str, object] = {
        "category_id": each.category + 1,
        "bbox": [x_min, y_min, width, height],
        "area": round(width * height, 3),
        "iscrowd": int(each.is_crowd),
        "segmentation": [],  # datumaro asks for the field
    }
    if each.mask is not None:
        entry["area"] = area_of_mask(each.mask, image.height, image.width)
        entry["segmentation"] = {"size": [image.height, image.width], "counts": run_lengths(each.mask)}
    if each.area is not None:
        entry["area"] = each.area
    if each.is_difficult:
        entry["ignore"] = 1
    return entry
