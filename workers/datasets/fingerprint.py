"""Computes the fingerprint of a dataset: equal images, targets and splits give the same one, under any file names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from workers.datasets.dataset import DatasetImage, DatasetObject, SplitName


def fingerprint(
    categories: Sequence[str], images: Mapping[SplitName, Sequence[DatasetImage]], label_map_digests: Mapping[str, str]
) -> str:
    """Returns a sha256 over the contents of the images, their targets (with category names) and their splits.

    label_map_digests: sha256 of the pixels of each label map, by its path.
    """
    lines = sorted(
        f"{split}\t{image.sha256}\t{_target(image, categories, label_map_digests)}\n"
        for split, listed in images.items()
        for image in listed
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _target(image: DatasetImage, categories: Sequence[str], label_map_digests: Mapping[str, str]) -> str:
    if image.category is not None:
        return categories[image.category]
    if image.label_map is not None:
        return json.dumps([*categories, label_map_digests[image.label_map]])
    return json.dumps(sorted(json.dumps(_object(each, categories)) for each in image.objects))


def _object(each: DatasetObject, categories: Sequence[str]) -> list[object]:
    return [categories[each.category], each.box, each.mask, each.is_crowd, each.is_difficult]
