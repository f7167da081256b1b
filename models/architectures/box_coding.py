"""Boxes as corrections of other boxes: what the regressors of the R-CNN line learn.

Girshick et al. 2014, appendix C, equations 6 to 9; scaled to have deviations near 1, as in Girshick 2015, section 2.3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SCALE = (10.0, 10.0, 5.0, 5.0)
_LARGEST_FACTOR = 1000 / 16  # by which a box may grow: more is an accident of a network that has not learned yet


def encode(boxes: Tensor, proposals: Tensor) -> Tensor:
    """How `proposals` must move and grow to become `boxes`, all float32 [..., 4] xyxy px with area: [..., 4]."""
    middles, sides = _middles_and_sides(proposals)
    wanted_middles, wanted_sides = _middles_and_sides(boxes)
    moves = torch.cat(((wanted_middles - middles) / sides, (wanted_sides / sides).log()), dim=-1)
    return moves * moves.new_tensor(_SCALE)


def decode(moves: Tensor, proposals: Tensor) -> Tensor:
    """`proposals`, float32 [..., 4] xyxy px, moved and grown by `moves`, float32 [..., 4]: the reverse of `encode`."""
    middles, sides = _middles_and_sides(proposals)
    moves = moves / moves.new_tensor(_SCALE)
    middles = middles + moves[..., :2] * sides
    half = sides * moves[..., 2:].clamp(max=math.log(_LARGEST_FACTOR)).exp() / 2
    return torch.cat((middles - half, middles + half), dim=-1)


def _middles_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
