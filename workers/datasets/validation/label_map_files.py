"""Reads the values of category masks, and writes the masks again with category indices instead of these values."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from models.masks.coco_masks import area_of_mask, decode_mask
from workers.datasets.dataset import VOID
from workers.datasets.formats.annotation import Annotation
from workers.datasets.formats.index_image import BrokenIndexImage, Indices
from workers.datasets.validation.exif_orientation import pixels_to_upright
from workers.datasets.validation.inspection import ImageFacts
from workers.datasets.validation.targets import (
    AnnotationProblem,
    annotation_orientation,
    convert_annotation,
    size_mismatch,
)

_VALUES = 2**16


class _UnusableMask(Exception):
    """A mask that cannot be used with its image."""

    def __init__(self, problem: AnnotationProblem) -> None:
        super().__init__(problem.reason)
        self.problem = problem


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelMap:
    """The categories of the pixels of an image, which are read again when they are written."""

    read: Callable[[], Indices]  # values of the archive on the upright image, uint16 [H, W]
    values: frozenset[int]


def read_label_map(
    annotation: Annotation, facts: ImageFacts, value_of_label: Mapping[str, int]
) -> LabelMap | AnnotationProblem:
    """Reads the mask of an image, or draws one from its objects. Returns the problem if that is impossible.

    value_of_label: the value of each category in a mask that is drawn.
    """
    read = partial(_upright_values, annotation, facts, value_of_label)
    try:
        values = read()
    except _UnusableMask as error:
        return error.problem
    found = np.flatnonzero(np.bincount(values.ravel(), minlength=_VALUES))
    return LabelMap(read=read, values=frozenset(found.tolist()))


def _upright_values(annotation: Annotation, facts: ImageFacts, value_of_label: Mapping[str, int]) -> Indices:
    if value_of_label:
        return _drawn_objects(annotation, facts, value_of_label)
    assert annotation.mask is not None
    try:
        values = annotation.mask.read()
    except BrokenIndexImage as error:
        reason = f"{annotation.mask.name}: {error}."
        raise _UnusableMask(AnnotationProblem(code="broken_mask_file", reason=reason)) from error
    size = (values.shape[1], values.shape[0])
    orientation = annotation_orientation(size, facts)
    if orientation is None:
        raise _UnusableMask(size_mismatch(size, facts))
    return pixels_to_upright(values, orientation)


def _drawn_objects(annotation: Annotation, facts: ImageFacts, value_of_label: Mapping[str, int]) -> Indices:
    """Draws the objects on 0: crowds first, then from large to small, so that small objects stay visible."""
    targets = convert_annotation(annotation, facts)
    if isinstance(targets, AnnotationProblem):
        raise _UnusableMask(targets)
    if annotation.unusable_objects:
        raise _UnusableMask(AnnotationProblem(code="broken_mask_file", reason="An entry about it cannot be used."))
    without = [target.label for target in targets.objects if target.mask is None]
    if without or "broken_masks" in targets.notes:
        reason = f"An object, {without[0]!r}, has no outline." if without else "An outline is damaged."
        raise _UnusableMask(AnnotationProblem(code="broken_mask_file", reason=reason))
    drawn = np.zeros((facts.height, facts.width), dtype=np.uint16)
    size = (facts.height, facts.width)
    for target in sorted(targets.objects, key=lambda each: (not each.is_crowd, -area_of_mask(each.mask or "", *size))):
        assert target.mask is not None
        drawn[decode_mask(target.mask, *size) > 0] = value_of_label[target.label]
    return drawn


def write_label_map(label_map: LabelMap, path: Path, values: Sequence[int]) -> str:
    """Writes a grey PNG whose pixels are indices into `values`, or 255 for other values.

    Returns the sha256 of the pixels. Raises OSError.
    """
    table = np.full(_VALUES, VOID, dtype=np.uint8)
    for index, value in enumerate(values):
        table[value] = index
    indices = table[label_map.read()]
    Image.fromarray(indices).save(path, "PNG", compress_level=4)
    return hashlib.sha256(repr(indices.shape).encode() + indices.tobytes()).hexdigest()
