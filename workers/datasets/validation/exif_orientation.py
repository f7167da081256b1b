"""Converts annotations from the stored pixels of an image to the upright image that EXIF describes.

The orientation is EXIF tag 0x0112: 1 (upright) to 8. Source: EXIF 2.32.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from models.masks.coco_masks import Box

_Value = TypeVar("_Value", bound=np.generic)

_IS_MIRRORED = frozenset({2, 3, 6, 7})  # left and right swapped, after the transposition of orientations 5 to 8
_IS_UPSIDE_DOWN = frozenset({3, 4, 7, 8})


def pixels_to_upright(pixels: npt.NDArray[_Value], orientation: int) -> npt.NDArray[_Value]:
    """Turns stored `pixels`, [H, W], upright."""
    upright = pixels.T if orientation >= 5 else pixels
    if orientation in _IS_MIRRORED:
        upright = upright[:, ::-1]
    if orientation in _IS_UPSIDE_DOWN:
        upright = upright[::-1]
    return np.ascontiguousarray(upright)


def box_to_upright(box: Box, orientation: int, *, width: int, height: int) -> Box:
    """Converts `box` from the stored image to the upright image of `width` x `height` pixels."""
    left, upper, right, lower = (box[1], box[0], box[3], box[2]) if orientation >= 5 else box
    if orientation in _IS_MIRRORED:
        left, right = width - right, width - left
    if orientation in _IS_UPSIDE_DOWN:
        upper, lower = height - lower, height - upper
    return left, upper, right, lower
