"""From what an archive says of a picture to objects on its upright pixels, and to what is wrong with some of them.

Every box that comes out lies inside the picture and has an area; every mask has the picture's size and is not empty.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from models.masks.coco_masks import (
    Box,
    BrokenMask,
    box_of_mask,
    checked_counts,
    decode_mask,
    encode_instances,
    encode_mask,
    mask_of_polygons,
)
from workers.datasets.dataset import VOID
from workers.datasets.formats.annotation import AnnotatedObject, Annotation, RunLengths
from workers.datasets.formats.index_png import BrokenIndexPng, read_index_png
from workers.datasets.validation.exif_orientation import turned_box, turned_pixels
from workers.datasets.validation.inspection import ImageFacts

MAX_OBJECTS = 5000  # an image: a detector compares each with every anchor, 4 GB for so many
_MIN_SIDE_PX = 0.5
_SLACK_PX = 1.0  # tools differ in whether they count pixels from 0 or 1: nothing to speak of
_DIGITS = 3  # of a box, px: what survives shares with six digits and comes back from an export


Note = Literal["degenerate_boxes", "outside_boxes", "clipped_boxes", "duplicate_boxes", "broken_masks", "empty_masks"]
TargetProblemCode = Literal["size_mismatch", "too_many_objects", "broken_mask_file"]


@dataclass(frozen=True, slots=True)
class TargetObject:
    """An object as it will be kept. Equal ones are the same object drawn twice."""

    label: str
    box: Box
    mask: str | None
    is_crowd: bool
    is_difficult: bool


@dataclass(kw_only=True, slots=True)
class Targets:
    """The objects of a picture, and where the odd ones stood."""

    objects: tuple[TargetObject, ...] = ()
    notes: defaultdict[Note, list[str]] = field(default_factory=lambda: defaultdict(list))


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetProblem:
    """Why a picture cannot be used with what is said of it."""

    code: TargetProblemCode
    reason: str


class _Unusable(Exception):
    def __init__(self, note: Note) -> None:
        super().__init__(note)
        self.note: Note = note


def targets_of(annotation: Annotation, facts: ImageFacts) -> Targets | TargetProblem:
    """The objects on a picture.

    An annotation made on the stored pixels of a turned picture, which its size gives away, is turned with it.
    """
    if annotation.mask is not None:
        return _targets_of_instances(annotation, facts)
    if len(annotation.objects) > MAX_OBJECTS:
        return _too_many(len(annotation.objects))
    orientation = written_orientation(annotation.size, facts)
    if orientation is None:
        return size_mismatch(annotation.size, facts)
    frame = _Frame(
        size=annotation.size or (facts.width, facts.height),
        upright=(facts.width, facts.height),
        orientation=orientation,
        is_relative=annotation.is_relative,
    )
    targets = Targets()
    kept: dict[TargetObject, None] = {}
    for written in annotation.objects:
        try:
            target = frame.target(written, targets)
        except _Unusable as error:
            targets.notes[error.note].append(written.where)
        else:
            if target in kept:
                targets.notes["duplicate_boxes"].append(written.where)
            kept[target] = None
    targets.objects = tuple(kept)
    return targets


def written_orientation(size: tuple[int, int] | None, facts: ImageFacts) -> int | None:
    """How an annotation of that size is to be turned to be upright; None if it is of another picture."""
    if size is None or size == (facts.width, facts.height):
        return 1
    is_stored = facts.orientation >= 5 and size == (facts.height, facts.width)
    return facts.orientation if is_stored else None


def size_mismatch(size: tuple[int, int] | None, facts: ImageFacts) -> TargetProblem:
    """What is said of an annotation for a picture of another size."""
    assert size is not None
    reason = f"The picture has {facts.width} x {facts.height} pixels, its annotation says {size[0]} x {size[1]}."
    return TargetProblem(code="size_mismatch", reason=reason)


def _too_many(count: int) -> TargetProblem:
    return TargetProblem(code="too_many_objects", reason=f"It has {count:,} objects.")


def _targets_of_instances(annotation: Annotation, facts: ImageFacts) -> Targets | TargetProblem:
    assert annotation.mask is not None
    try:
        indices = read_index_png(annotation.mask.path.read_bytes())
    except BrokenIndexPng as error:
        return TargetProblem(code="broken_mask_file", reason=f"{annotation.mask.name}: {error}.")
    size = (indices.shape[1], indices.shape[0])
    orientation = written_orientation(size, facts)
    if orientation is None:
        return size_mismatch(size, facts)
    count = len(np.unique(indices))
    if count > MAX_OBJECTS + 1:
        return _too_many(count - 1)
    masks = encode_instances(turned_pixels(indices, orientation))
    if VOID in masks and max(masks) == VOID and 0 < len(masks) - 1 < VOID - 1:
        del masks[VOID]  # VOC's rims: 255 where objects are not numbered up to it
    return Targets(objects=tuple(_instances(masks, annotation, facts)))


def _instances(masks: Mapping[int, str], annotation: Annotation, facts: ImageFacts) -> Iterator[TargetObject]:
    for instance, counts in masks.items():
        box = box_of_mask(counts, facts.height, facts.width)
        assert box is not None
        is_named = instance <= len(annotation.labels)
        label = annotation.labels[instance - 1] if is_named else annotation.default_label
        yield TargetObject(label, box, counts, is_crowd=False, is_difficult=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Frame:
    """The pixels that an annotation was made on, and how they lie in the upright picture."""

    size: tuple[int, int]  # width, height
    upright: tuple[int, int]
    orientation: int
    is_relative: bool

    def target(self, written: AnnotatedObject, targets: Targets) -> TargetObject:
        """The object upright, its box cut at the picture's edges. Raises _Unusable."""
        mask = self._mask(written)
        box = self._clipped(self._box(written, mask), written.where, targets)
        if self.orientation != 1:
            width, height = self.upright
            box = turned_box(box, self.orientation, width=width, height=height)
            if mask is not None:
                mask = encode_mask(turned_pixels(decode_mask(mask, self.size[1], self.size[0]), self.orientation))
        x_min, y_min, x_max, y_max = (round(value, _DIGITS) for value in box)
        return TargetObject(written.label, (x_min, y_min, x_max, y_max), mask, written.is_crowd, written.is_difficult)

    def _mask(self, written: AnnotatedObject) -> str | None:
        width, height = self.size
        if written.outline is None:
            return None
        if isinstance(written.outline, RunLengths):
            if (written.outline.width, written.outline.height) != self.size:
                raise _Unusable("broken_masks")
            try:
                mask = checked_counts(written.outline.counts, height, width)
            except BrokenMask as error:
                raise _Unusable("broken_masks") from error
        else:
            scale = np.array([width, height] if self.is_relative else [1, 1], dtype=np.float64)
            polygons = [(np.reshape(polygon, (-1, 2)) * scale).ravel() for polygon in written.outline]
            try:
                mask = mask_of_polygons([polygon.tolist() for polygon in polygons], height, width)
            except BrokenMask as error:
                raise _Unusable("broken_masks") from error
        if box_of_mask(mask, height, width) is None:
            raise _Unusable("empty_masks")
        return mask

    def _box(self, written: AnnotatedObject, mask: str | None) -> Box:
        if written.box is None:
            assert mask is not None
            box = box_of_mask(mask, self.size[1], self.size[0])
            assert box is not None
            return box
        if not self.is_relative:
            return written.box
        width, height = self.size
        x_min, y_min, x_max, y_max = written.box
        return x_min * width, y_min * height, x_max * width, y_max * height

    def _clipped(self, box: Box, where: str, targets: Targets) -> Box:
        x_min, y_min, x_max, y_max = box
        if min(x_max - x_min, y_max - y_min) < _MIN_SIDE_PX:
            raise _Unusable("degenerate_boxes")
        width, height = self.size
        inside = (max(x_min, 0.0), max(y_min, 0.0), min(x_max, float(width)), min(y_max, float(height)))
        if min(inside[2] - inside[0], inside[3] - inside[1]) < _MIN_SIDE_PX:
            raise _Unusable("outside_boxes")
        if max(abs(before - after) for before, after in zip(box, inside, strict=True)) > _SLACK_PX:
            targets.notes["clipped_boxes"].append(where)
        return inside
