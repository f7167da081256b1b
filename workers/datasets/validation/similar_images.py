"""Finds near-duplicates: copies of an image that were resized, compressed again, brightened or captioned.

An image is described by the signs of 256 differences in brightness: dHash (Krawetz 2013, "Kind of like that") with a
third sign for "no difference", so that two objects on the same plain ground are not taken for copies. Copies of photos
differ in less than 15 % of the signs, and other photos in more than 29 %: measured on hymenoptera, BCCD and Penn-Fudan.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

MAX_COMPARED = 50_000  # images; every pair is compared, which takes half a minute for so many
_MIN_SIDE_PX = 64  # a smaller image has too little detail
_ROWS, _COLUMNS = 16, 17  # cells of the grey thumbnail; each row has 16 differences
_SAMPLED_PX = 128  # the shorter side is thinned out to about so many pixels before it is averaged
_FLAT = 2.0  # a smaller difference between cells, of 255, counts as none
_FEWEST_SIGNS = 64  # with fewer differences in both images they are not compared
_LARGEST_DISTANCE = 0.15
_BLOCK = 2048  # rows of pairs that are compared at once

Signs = npt.NDArray[np.float32]


def brightness_signs(pixels: Tensor) -> bytes | None:
    """Returns 256 signs, int8 -1, 0 or 1, of an image, uint8 [3, H, W]; None if a side has less than 64 px."""
    side = min(pixels.shape[1:])
    if side < _MIN_SIDE_PX:
        return None
    step = max(1, side // _SAMPLED_PX)
    grey = pixels[:, ::step, ::step].float().mean(dim=0, keepdim=True)
    cells = torch.nn.functional.adaptive_avg_pool2d(grey, (_ROWS, _COLUMNS))[0]  # [16, 17]
    differences = cells.diff(dim=1)  # [16, 16]
    signs = differences.sign() * (differences.abs() > _FLAT)
    return signs.to(torch.int8).numpy().tobytes()


def similar_pairs(signs: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Yields the positions of all pairs of near-duplicates in `signs`, each result of `brightness_signs`.

    The distance of two images is the sum of |a - b| over the positions where a or b has a sign, divided by its largest
    possible value.
    """
    if not signs:
        return
    every = np.frombuffer(b"".join(signs), dtype=np.int8).reshape(len(signs), -1).astype(np.float32)
    for start in range(0, len(every), _BLOCK):
        rows = every[start : start + _BLOCK]
        near = _distances(rows, every[start:]) <= _LARGEST_DISTANCE
        first, second = np.nonzero(np.triu(near, k=1))
        yield from zip((first + start).tolist(), (second + start).tolist(), strict=True)


def _distances(rows: Signs, columns: Signs) -> Signs:
    """Returns the distance between each of `rows`, [R, 256], and each of `columns`, [C, 256], as [R, C]."""
    signed = np.abs(rows).sum(axis=1)[:, None] + np.abs(columns).sum(axis=1)[None]
    equal = (rows > 0).astype(np.float32) @ (columns > 0).astype(np.float32).T
    equal += (rows < 0).astype(np.float32) @ (columns < 0).astype(np.float32).T
    either = signed - np.abs(rows) @ np.abs(columns).T
    distances = (signed - 2 * equal) / (2 * np.maximum(either, 1))
    return np.where(either >= _FEWEST_SIGNS, distances, np.float32(1))


class Groups:
    """Joins items that must stay together (union-find). The smallest name of a group is the group's name."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def join(self, one: str, other: str) -> None:
        """Puts two items, and all that are with them, into one group."""
        first, second = sorted((self.of(one), self.of(other)))
        self._parents[second] = first

    def of(self, item: str) -> str:
        """Returns the name of the item's group: the item itself if it was never joined."""
        while (parent := self._parents.get(item, item)) != item:
            self._parents[item] = self._parents.get(parent, parent)
            item = parent
        return item
