"""Boxes as corrections of other boxes: what the regressors of the R-CNN line learn.

Girshick et al. 2014, appendix C, equations 6 to 9; scaled to have deviations near 1, as in Girshick 2015, section 2.3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SCALE = (10.0, 10.0, 5.0, 5.0)
_LARGEST_FACTOR = 1000 / 16  # by which a box may grow: an untrained network may answer more


def encode(boxes: Tensor, proposals: Tensor) -> Tensor:
    """Returns the corrections, [..., 4], that turn `proposals` into `boxes`, all float32 [..., 4] xyxy px with area."""
    middles, sides = _middles_and_sides(proposals)
    wanted_middles, wanted_sides = _middles_and_sides(boxes)
    corrections = torch.cat(((wanted_middles - middles) / sides, (wanted_sides / sides).log()), dim=-1)
    return corrections * corrections.new_tensor(_SCALE)


def decode(corrections: Tensor, proposals: Tensor) -> Tensor:
    """Applies `corrections`, float32 [..., 4], to `proposals`, float32 [..., 4] xyxy px: the inverse of `encode`."""
    middles, sides = _middles_and_sides(proposals)
    corrections = corrections / corrections.new_tensor(_SCALE)
    middles = middles + corrections[..., :2] * sides
    half = sides * corrections[..., 2:].clamp(max=math.log(_LARGEST_FACTOR)).exp() / 2
    return torch.cat((middles - half, middles + half), dim=-1)


def _middles_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
