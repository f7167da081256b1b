"""Which cells of a one-stage detector answer for which object.

TOOD: task-aligned one-stage object detection (Feng et al. 2021), section 3.2. A cells, N objects, K categories.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

# The paper's: how much the score and the overlap count, and how many cells an object gets.
ALPHA = 1.0
BETA = 6.0
CELLS_OF_AN_OBJECT = 13


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """What each of A cells should answer."""

    objects: Tensor  # int64 [A]: index of the object, -1 for background
    quality: Tensor  # float32 [A] in [0, 1]: the score it should give that object's category; 0 for background


@torch.no_grad()
def assign(
    *, scores: Tensor, boxes: Tensor, centres: Tensor, strides: Tensor, target_boxes: Tensor, target_labels: Tensor
) -> Assignment:
    """Gives each object the cells whose score and box are best aligned with it; no anchors, no sizes by level.

    Alignment is score^ALPHA * IoU^BETA. A cell may answer for an object if its centre is inside the box, or the box's
    centre is inside the cell, so that an object smaller than a cell has one. A cell that several objects want answers
    for the one it overlaps most. The best cell of an object should score its IoU, the others in proportion.

    scores: float32 [A, K] in [0, 1]; boxes: float32 [A, 4] xyxy px, as predicted; centres: float32 [A, 2] xy px;
    strides: float32 [A] px; target_boxes: float32 [N, 4] xyxy px; target_labels: int64 [N] from 0.
    """
    if not len(target_boxes):
        none = torch.full((len(boxes),), -1, device=boxes.device)
        return Assignment(objects=none, quality=boxes.new_zeros(len(boxes)))
    overlaps = box_iou(target_boxes, boxes)  # [N, A]
    alignment = scores.T[target_labels].pow(ALPHA) * overlaps.pow(BETA)
    candidates = _is_inside(centres, target_boxes) | _holds_the_middle(centres, strides, target_boxes)  # [N, A]
    chosen = _best(alignment.where(candidates, -1.0)) & candidates
    owner = overlaps.where(chosen, -1.0).argmax(0)  # [A]
    chosen &= torch.arange(len(target_boxes), device=boxes.device)[:, None] == owner
    alignment, overlaps = alignment.where(chosen, 0.0), overlaps.where(chosen, 0.0)
    share = alignment / alignment.amax(1, keepdim=True).clamp(min=torch.finfo(alignment.dtype).tiny)
    quality = (share * overlaps.amax(1, keepdim=True)).amax(0)
    return Assignment(objects=owner.where(chosen.any(0), -1), quality=quality)


def _is_inside(centres: Tensor, boxes: Tensor) -> Tensor:
    """bool [N, A]: whether the cell's centre is in the box."""
    after_start = centres[None] > boxes[:, None, :2]  # [N, A, 2]
    before_end = centres[None] < boxes[:, None, 2:]
    return (after_start & before_end).all(2)


def _holds_the_middle(centres: Tensor, strides: Tensor, boxes: Tensor) -> Tensor:
    """bool [N, A]: whether the box's centre is in the cell."""
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2  # [N, 2]
    away = (centres[None] - middles[:, None]).abs().amax(2)  # [N, A]
    return away <= strides / 2


def _best(alignment: Tensor) -> Tensor:
    """bool [N, A]: the CELLS_OF_AN_OBJECT best of every row."""
    count = min(CELLS_OF_AN_OBJECT, alignment.shape[1])
    return torch.zeros_like(alignment, dtype=torch.bool).scatter(1, alignment.topk(count, dim=1).indices, value=True)
