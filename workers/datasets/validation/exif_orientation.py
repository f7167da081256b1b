"""Annotations made on the stored pixels of a picture, turned as EXIF says the picture is to be seen.

Orientation is EXIF's tag 0x0112, 1 (upright) to 8. Source: EXIF 2.32.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from models.masks.coco_masks import Box

_Value = TypeVar("_Value", bound=np.generic)

_IS_MIRRORED = frozenset({2, 3, 6, 7})  # left and right, after the transposition of 5 to 8
_IS_UPSIDE_DOWN = frozenset({3, 4, 7, 8})


def turned_pixels(pixels: npt.NDArray[_Value], orientation: int) -> npt.NDArray[_Value]:
    """`pixels`, [H, W] as stored, upright."""
    upright = pixels.T if orientation >= 5 else pixels
    if orientation in _IS_MIRRORED:
        upright = upright[:, ::-1]
    if orientation in _IS_UPSIDE_DOWN:
        upright = upright[::-1]
    return np.ascontiguousarray(upright)


def turned_box(box: Box, orientation: int, *, width: int, height: int) -> Box:
    """`box` on the stored picture, on the upright one of `width` x `height` pixels."""
    left, upper, right, lower = (box[1], box[0], box[3], box[2]) if orientation >= 5 else box
    if orientation in _IS_MIRRORED:
        left, right = width - right, width - left
    if orientation in _IS_UPSIDE_DOWN:
        upper, lower = height - lower, height - upper
    return left, upper, right, lower
