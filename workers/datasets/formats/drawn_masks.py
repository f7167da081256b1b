"""Turns a detection dataset with outlines or masks into a segmentation dataset: its objects are drawn on background."""

from __future__ import annotations

from dataclasses import replace

from workers.datasets.formats.annotation import Annotation
from workers.datasets.formats.reading import Reading

_BACKGROUND = "background"


def as_segmentation(reading: Reading) -> Reading | None:
    """Returns `reading` for segmentation, to be drawn by validation; None if its objects are only boxes."""
    annotations = [file.annotation for file in reading.files if file.annotation is not None]
    if not any(_has_masks(annotation) for annotation in annotations):
        return None
    used = {label for annotation in annotations for label in _labels(annotation)}
    labels = [*reading.categories, *sorted(used - set(reading.categories))]
    categories = (_BACKGROUND, *(label for label in labels if label != _BACKGROUND))
    return replace(reading, task="segmentation", categories=categories, is_drawn=True)


def _has_masks(annotation: Annotation) -> bool:
    return annotation.mask is not None or any(each.outline is not None for each in annotation.objects)


def _labels(annotation: Annotation) -> set[str]:
    if annotation.mask is not None:
        return {*annotation.labels, annotation.default_label}
    return {each.label for each in annotation.objects}
