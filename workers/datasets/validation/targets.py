"""Converts the annotation of an image to objects on the upright image, and notes which of them have problems.

Every resulting box lies inside the image and has an area. Every mask has the size of the image and is not empty.
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
from workers.datasets.formats.index_image import BrokenIndexImage
from workers.datasets.validation.exif_orientation import box_to_upright, pixels_to_upright
from workers.datasets.validation.inspection import ImageFacts

MAX_OBJECTS = 5000  # per image: a detector compares each object with every anchor, which takes 4 GB for so many
_MIN_SIDE_PX = 0.5
_SLACK_PX = 1.0  # a box this far outside is clipped without a note: some tools count pixels from 0, some from 1
_DIGITS = 3  # decimal places of a box in px: fractions with six digits keep them, and so does an export


ObjectNoteCode = Literal[
    "degenerate_boxes",
    "outside_boxes",
    "clipped_boxes",
    "duplicate_boxes",
    "broken_masks",
    "empty_masks",
    "outlines_ignored",
]
Frame = Literal["stored", "upright"]  # the pixels that an annotation counts: before or after EXIF turns the image
AnnotationProblemCode = Literal["size_mismatch", "too_many_objects", "broken_mask_file"]


@dataclass(frozen=True, slots=True)
class TargetObject:
    """An object as the dataset stores it. Two equal ones are the same object, annotated twice."""

    label: str
    box: Box
    mask: str | None
    is_crowd: bool
    is_difficult: bool
    area: float | None = field(default=None, compare=False)  # px^2, if the archive states it

    @property
    def is_ignored(self) -> bool:
        """True if neither training nor metrics count it."""
        return self.is_crowd or self.is_difficult


@dataclass(kw_only=True, slots=True)
class ImageTargets:
    """The objects of an image, and notes about objects with problems."""

    objects: tuple[TargetObject, ...] = ()
    notes: defaultdict[ObjectNoteCode, list[str]] = field(default_factory=lambda: defaultdict(list))  # code -> places


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotationProblem:
    """The reason why an image cannot be used with its annotation."""

    code: AnnotationProblemCode
    reason: str


class _UnusableObject(Exception):
    """An object that is left out; `note` is the reason."""

    def __init__(self, note: ObjectNoteCode) -> None:
        super().__init__(note)
        self.note: ObjectNoteCode = note


def convert_annotation(
    annotation: Annotation, facts: ImageFacts, *, frame: Frame | None = None
) -> ImageTargets | AnnotationProblem:
    """Converts the annotation of an image.

    frame: the pixels that the annotation of a turned image counts. None: if its boxes fit only one of them, that one;
    otherwise, the stored pixels if their size is stated, else the upright ones.
    """
    if annotation.mask is not None:
        return _convert_instance_mask(annotation, facts)
    if len(annotation.objects) > MAX_OBJECTS:
        return _too_many(len(annotation.objects))
    orientation = annotation_orientation(annotation.size, facts)
    if orientation is None:
        return size_mismatch(annotation.size, facts)
    frame = frame_of_boxes(annotation, facts) or frame
    if frame is not None and facts.orientation >= 5:
        orientation = facts.orientation if frame == "stored" else 1
    upright = (facts.width, facts.height)
    conversion = _AnnotationFrame(
        size=upright if orientation < 5 else upright[::-1],
        upright=upright,
        orientation=orientation,
        is_relative=annotation.is_relative,
    )
    targets = ImageTargets()
    kept: dict[TargetObject, None] = {}
    for annotated in annotation.objects:
        try:
            target = conversion.convert(annotated, targets)
        except _UnusableObject as error:
            targets.notes[error.note].append(annotated.where)
        else:
            if target in kept:
                targets.notes["duplicate_boxes"].append(annotated.where)
            kept[target] = None
    targets.objects = tuple(kept)
    return targets


def frame_of_boxes(annotation: Annotation, facts: ImageFacts) -> Frame | None:
    """Returns the frame that all boxes and outlines of a turned image fit, if some of them leave the other frame.

    Some tools write the stored size beside boxes on the upright image (Label Studio), others do the reverse.
    """
    if facts.orientation < 5 or annotation.is_relative or facts.width == facts.height:
        return None
    corners = [corner for annotated in annotation.objects if (corner := _far_corner(annotated)) is not None]
    if not corners:
        return None
    right, lower = (max(values) for values in zip(*corners, strict=True))
    fits_upright = right <= facts.width + _SLACK_PX and lower <= facts.height + _SLACK_PX
    fits_stored = right <= facts.height + _SLACK_PX and lower <= facts.width + _SLACK_PX
    if fits_upright == fits_stored:
        return None
    return "upright" if fits_upright else "stored"


def _far_corner(annotated: AnnotatedObject) -> tuple[float, float] | None:
    if annotated.box is not None:
        return annotated.box[2:]
    if isinstance(annotated.outline, RunLengths) or not annotated.outline:
        return None
    return max(max(part[::2]) for part in annotated.outline), max(max(part[1::2]) for part in annotated.outline)


def annotation_orientation(size: tuple[int, int] | None, facts: ImageFacts) -> int | None:
    """Returns the EXIF orientation that turns an annotation of `size` upright, or None if it fits another image."""
    if size is None or size == (facts.width, facts.height):
        return 1
    is_stored = facts.orientation >= 5 and size == (facts.height, facts.width)
    return facts.orientation if is_stored else None


def size_mismatch(size: tuple[int, int] | None, facts: ImageFacts) -> AnnotationProblem:
    """Returns the problem of an annotation for an image of another size."""
    assert size is not None
    reason = f"The image has {facts.width} x {facts.height} pixels, but its annotation has {size[0]} x {size[1]}."
    return AnnotationProblem(code="size_mismatch", reason=reason)


def _too_many(count: int) -> AnnotationProblem:
    return AnnotationProblem(code="too_many_objects", reason=f"It has {count:,} objects; at most {MAX_OBJECTS:,}.")


def _convert_instance_mask(annotation: Annotation, facts: ImageFacts) -> ImageTargets | AnnotationProblem:
    assert annotation.mask is not None
    try:
        indices = annotation.mask.read()
    except BrokenIndexImage as error:
        return AnnotationProblem(code="broken_mask_file", reason=f"{annotation.mask.name}: {error}.")
    size = (indices.shape[1], indices.shape[0])
    orientation = annotation_orientation(size, facts)
    if orientation is None:
        return size_mismatch(size, facts)
    count = len(np.unique(indices))
    if count > MAX_OBJECTS + 1:
        return _too_many(count - 1)
    masks = encode_instances(pixels_to_upright(indices, orientation))
    if VOID in masks and max(masks) == VOID and 0 < len(masks) - 1 < VOID - 1:
        del masks[VOID]  # VOC draws borders with 255; it is an instance only if the numbers really go up to 255
    return ImageTargets(objects=tuple(_instances(masks, annotation, facts)))


def _instances(masks: Mapping[int, str], annotation: Annotation, facts: ImageFacts) -> Iterator[TargetObject]:
    for instance, counts in masks.items():
        box = box_of_mask(counts, facts.height, facts.width)
        assert box is not None
        is_named = instance <= len(annotation.labels)
        label = annotation.labels[instance - 1] if is_named else annotation.default_label
        yield TargetObject(label, box, counts, is_crowd=False, is_difficult=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class _AnnotationFrame:
    """The coordinates of an annotation, and how to convert them to the upright image."""

    size: tuple[int, int]  # width and height of the image that was annotated
    upright: tuple[int, int]  # width and height of the upright image
    orientation: int  # EXIF orientation that turns the first into the second
    is_relative: bool  # True: coordinates are fractions of `size`; False: pixels

    def convert(self, annotated: AnnotatedObject, targets: ImageTargets) -> TargetObject:
        """Returns the object on the upright image, with its box clipped to it. Raises _UnusableObject."""
        try:
            mask = self._mask(annotated)
        except _UnusableObject:
            if annotated.box is None:
                raise
            targets.notes["outlines_ignored"].append(annotated.where)
            mask = None
        box = self._clipped(self._box(annotated, mask), annotated.where, targets)
        if self.orientation != 1:
            width, height = self.upright
            box = box_to_upright(box, self.orientation, width=width, height=height)
            if mask is not None:
                mask = encode_mask(pixels_to_upright(decode_mask(mask, self.size[1], self.size[0]), self.orientation))
        x_min, y_min, x_max, y_max = (round(value, _DIGITS) for value in box)
        return TargetObject(
            annotated.label,
            (x_min, y_min, x_max, y_max),
            mask,
            annotated.is_crowd,
            annotated.is_difficult,
            annotated.area,
        )

    def _mask(self, annotated: AnnotatedObject) -> str | None:
        width, height = self.size
        if annotated.outline is None:
            return None
        if not annotated.outline:
            raise _UnusableObject("broken_masks")
        if isinstance(annotated.outline, RunLengths):
            if (annotated.outline.width, annotated.outline.height) != self.size:
                raise _UnusableObject("broken_masks")
            try:
                mask = checked_counts(annotated.outline.counts, height, width)
            except BrokenMask as error:
                raise _UnusableObject("broken_masks") from error
        else:
            scale = np.array([width, height] if self.is_relative else [1, 1], dtype=np.float64)
            polygons = [(np.reshape(polygon, (-1, 2)) * scale).ravel() for polygon in annotated.outline]
            try:
                mask = mask_of_polygons([polygon.tolist() for polygon in polygons], height, width)
            except BrokenMask as error:
                raise _UnusableObject("broken_masks") from error
        if box_of_mask(mask, height, width) is None:
            raise _UnusableObject("empty_masks")
        return mask

    def _box(self, annotated: AnnotatedObject, mask: str | None) -> Box:
        if annotated.box is None or (mask is not None and _is_degenerate(annotated.box)):
            assert mask is not None
            box = box_of_mask(mask, self.size[1], self.size[0])
            assert box is not None
            return box
        if not self.is_relative:
            return annotated.box
        width, height = self.size
        x_min, y_min, x_max, y_max = annotated.box
        return x_min * width, y_min * height, x_max * width, y_max * height

    def _clipped(self, box: Box, where: str, targets: ImageTargets) -> Box:
        x_min, y_min, x_max, y_max = box
        if min(x_max - x_min, y_max - y_min) < _MIN_SIDE_PX:
            raise _UnusableObject("degenerate_boxes")
        width, height = self.size
        inside = (max(x_min, 0.0), max(y_min, 0.0), min(x_max, float(width)), min(y_max, float(height)))
        if min(inside[2] - inside[0], inside[3] - inside[1]) < _MIN_SIDE_PX:
            raise _UnusableObject("outside_boxes")
        if max(abs(before - after) for before, after in zip(box, inside, strict=True)) > _SLACK_PX:
            targets.notes["clipped_boxes"].append(where)
        return inside


def _is_degenerate(box: Box) -> bool:
    return box[2] <= box[0] or box[3] <= box[1]
