"""Finds near-duplicates: copies of an image that were resized, compressed again, brightened or captioned.

An image is described by the signs of 256 differences in brightness: dHash (Krawetz 2013, "Kind of like that") with a
third sign for "no difference", so that two objects on the same plain ground are not taken for copies. Copies of photos
differ in less than 15 % of the signs, and other photos in more than 29 %: measured on hymenoptera, BCCD and Penn-Fudan.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

MAX_COMPARED = 50_000  # images; every pair is compared, which takes half a minute for so many
_MIN_SIDE_PX = 64  # a smaller image has too little detail
_ROWS, _COLUMNS = 16, 17  # cells of the grey thumbnail; each row has 16 differences
_SAMPLED_PX = 128  # the shorter side is thinned out to about so many pixels before it is averaged
_SIGNS = 256
_FLAT = 2.0  # a smaller difference between cells, of 255, counts as none
_FEWEST_SIGNS = 64  # with fewer differences in both images they are not compared
_LARGEST_DISTANCE = 0.15
_ROUNDING = 1e-3
_ROWS_AT_ONCE = 512  # images compared with all others in one product

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


def similar_groups(signs: Sequence[bytes]) -> list[int]:
    """Returns the group of each image, named by the position of its first image: near-duplicates have the same one.

    signs: results of `brightness_signs`. Near-duplicates of near-duplicates are in the same group.
    """
    groups = np.arange(len(signs))
    every = np.frombuffer(b"".join(signs), dtype=np.int8).reshape(-1, _SIGNS).astype(np.float32)
    kept = np.flatnonzero(np.abs(every).sum(axis=1) >= _FEWEST_SIGNS / 2)  # no other image can have a near-duplicate
    every = every[kept]
    found = kept.copy()  # the group of each kept image
    rows, columns = _factors(every)
    for start in range(0, len(kept), _ROWS_AT_ONCE):
        near = rows[start : start + _ROWS_AT_ONCE] @ columns[start:].T > -_ROUNDING
        near[np.tril_indices(len(near))] = False  # each pair once
        for row in np.flatnonzero(near.any(axis=1)):
            others = start + np.flatnonzero(near[row])
            others = others[found[others] != found[start + row]]
            others = others[_is_far_from_plain(every[start + row], every[others])]
            joined = np.unique(found[[start + row, *others]])
            if len(joined) > 1:
                found[np.isin(found, joined)] = joined[0]
    groups[kept] = found
    return [int(group) for group in groups]


def _factors(signs: Signs) -> tuple[Signs, Signs]:
    """Returns two matrices, both [N, 514], whose product is at least 0 where two of `signs`, [N, 256], are similar.

    The distance of a and b is sum |a - b| / (2 e), where e is the number of positions with a sign in a or in b. With
    n signs in each, o positions where both have one, and s where these are equal, e = n_a + n_b - o and
    sum |a - b| = n_a + n_b - 2 s. So the distance is at most d where 2 s - 2 d o - (1 - 2 d) (n_a + n_b) >= 0.
    """
    limit = np.float32(_LARGEST_DISTANCE)
    plus, minus = (signs > 0).astype(np.float32), (signs < 0).astype(np.float32)
    counts = (1 - 2 * limit) * np.abs(signs).sum(axis=1, keepdims=True)
    ones = np.ones_like(counts)
    rows = np.hstack([plus, minus, -counts, ones])
    equal, opposite = 2 - 2 * limit, -2 * limit
    columns = np.hstack([equal * plus + opposite * minus, equal * minus + opposite * plus, ones, -counts])
    return rows, columns


def _is_far_from_plain(one: Signs, others: Signs) -> npt.NDArray[np.bool_]:
    """Returns which of `others`, [M, 256], have enough signs together with `one`, [256], to be compared."""
    either = ((one != 0) | (others != 0)).sum(axis=1)
    return np.asarray(either >= _FEWEST_SIGNS)


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
