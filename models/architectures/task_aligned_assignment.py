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
_OBJECTS_AT_ONCE = 512  # 10,000 on an image would take gigabytes


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
    objects = torch.full((len(boxes),), -1, device=boxes.device)
    quality = boxes.new_zeros(len(boxes))
    if not len(target_boxes):
        return Assignment(objects=objects, quality=quality)
    wishes = [
        _wishes(start, scores, boxes, centres, strides, some_boxes, some_labels)
        for start, some_boxes, some_labels in zip(
            range(0, len(target_boxes), _OBJECTS_AT_ONCE),
            torch.split(target_boxes, _OBJECTS_AT_ONCE),
            torch.split(target_labels, _OBJECTS_AT_ONCE),
            strict=True,
        )
    ]
    of_object, cell, overlap, alignment = (torch.cat(parts) for parts in zip(*wishes, strict=True))
    most = quality.scatter_reduce(0, cell, overlap, "amax")[cell]
    objects[cell[overlap >= most]] = of_object[overlap >= most]
    granted = objects[cell] == of_object
    of_object, cell, overlap, alignment = (part[granted] for part in (of_object, cell, overlap, alignment))
    none = boxes.new_zeros(len(target_boxes))
    best_alignment = none.scatter_reduce(0, of_object, alignment, "amax").clamp(min=torch.finfo(boxes.dtype).tiny)
    best_overlap = none.scatter_reduce(0, of_object, overlap, "amax")
    quality[cell] = alignment / best_alignment[of_object] * best_overlap[of_object]
    return Assignment(objects=objects, quality=quality)


def _wishes(
    start: int, scores: Tensor, boxes: Tensor, centres: Tensor, strides: Tensor, objects: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The cells that some of the objects want: object, cell, int64 [W], overlap and alignment, float32 [W].

    start: index of the first of `objects`, float32 [n, 4], with `labels`, int64 [n].
    """
    overlaps = box_iou(objects, boxes)  # [n, A]
    alignment = scores.T[labels].pow(ALPHA) * overlaps.pow(BETA)
    candidates = _is_inside(centres, objects) | _holds_the_middle(centres, strides, objects)
    best = alignment.where(candidates, -1.0).topk(min(CELLS_OF_AN_OBJECT, len(boxes)), dim=1)
    row, column = (best.values >= 0).nonzero(as_tuple=True)
    cell = best.indices[row, column]
    return row + start, cell, overlaps[row, cell], best.values[row, column]


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
