"""Tells whether the name of a folder describes the structure of a dataset (`train`, `masks`) or may be a category."""

from __future__ import annotations

import re
from collections.abc import Collection

_STRONG_TEXT = """
train training trainset val valid validation valset test testing testset eval dev holdout split splits set sets fold
folds image images img imgs jpegimages pngimages photos pictures pics frames mask masks segmentation segment
segmentations seg annotation annotations annots anno gt gts groundtruth labels semantic panoptic trimap trimaps
visualization visualizations visualisation vis data dataset datasets input inputs output outputs unlabeled unlabelled
bbox bboxes boxes polygons labeltxt
"""
_WEAK_TEXT = """
fine coarse left right bit rgb jpeg jpg png gray grey color colour ground truth class classes object objects instance
instances label target targets raw all full original new final of and the part
"""
_STRONG = frozenset(_STRONG_TEXT.split())
_WEAK = frozenset(_WEAK_TEXT.split())  # they may be categories, but not beside a strong word: `fine` in `gtFine`
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+")


def is_structural(folder: str) -> bool:
    """Returns True if `folder` consists of words for splits, images or masks: `seg_train`, `JPEGImages`, `gtFine`.

    Numbers and single letters count for nothing: `fold1`, `trainA`. `class_1` may be a category.
    """
    return folder.casefold() in _STRONG or (_is_known(folder) and not _STRONG.isdisjoint(_words(folder)))


def are_structural(folders: Collection[str]) -> bool:
    """Returns True if `folders` are structural together, as `image` and `label`: alone, `label` may be a category."""
    return all(map(_is_known, folders)) and any(map(is_structural, folders))


def _is_known(folder: str) -> bool:
    words = _words(folder)
    known = all(word in _STRONG or word in _WEAK or len(word) == 1 for word in words)
    return folder.casefold() in _STRONG or (known and any(len(word) > 1 for word in words))


def _words(folder: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(folder)]
