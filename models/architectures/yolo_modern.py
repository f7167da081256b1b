"""YOLO as it is built a few years on: one stage, every cell of three grids answers, no anchors.

What changed from Redmon et al. 2016, and whose idea it is:
- grids of strides 8, 16 and 32 joined from coarse to fine and back: FPN (Lin et al. 2017), PANet (Liu et al. 2018);
- a cell predicts the distances from its centre to the four sides: FCOS (Tian et al. 2019);
- boxes and categories come from branches of their own: YOLOX (Ge et al. 2021);
- which cell answers is learned with the answer: TOOD (Feng et al. 2021), `task_aligned_assignment`;
- a score says how well the box fits, and easy cells count little: quality focal loss (Li et al. 2020);
- boxes learn by their overlap, distance and aspect: complete IoU (Zheng et al. 2020);
- scores start low, as nearly all cells are background: Lin et al. 2017 (focal loss), section 4.1.

B images, A cells of all grids, N objects, K categories.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import Conv2dNormActivation, complete_box_iou_loss

from models.architectures.backbones import feature_maps
from models.architectures.detector_parts import as_batch, best_detections, check_targets
from models.architectures.task_aligned_assignment import Assignment, assign

STRIDES = (8, 16, 32)
_WIDTH = 96  # channels of neck and heads: narrow, for CPUs
_FIRST_SCORE = 0.01
_FIRST_DISTANCE = 2.5  # strides: boxes of 40, 80 and 160 px, so sizes find their grid from the first step on
_FOCUS = 2.0  # Li et al. 2020
_BOX_WEIGHT = 2.0  # of the box loss beside that of the categories

_Convolution = partial(Conv2dNormActivation, activation_layer=nn.SiLU)


class Neck(nn.Module):
    """Joins maps of three strides, from coarse to fine and back, at one width."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(_Convolution(count, width, 1) for count in channels)
        self.down = nn.ModuleList(_Convolution(width, width, 3) for _ in channels[1:])
        self.up = nn.ModuleList(_Convolution(width, width, 3, stride=2) for _ in channels[1:])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        joined = [lateral(one) for lateral, one in zip(self.lateral, maps, strict=True)]
        for finer, smooth in zip(reversed(range(len(joined) - 1)), self.down, strict=True):
            enlarged = functional.interpolate(joined[finer + 1], scale_factor=2.0, mode="nearest")
            joined[finer] = smooth(joined[finer] + enlarged)
        for (finer, coarser), shrink in zip(pairwise(range(len(joined))), self.up, strict=True):
            joined[coarser] = joined[coarser] + shrink(joined[finer])
        return joined


class Head(nn.Module):
    """What the cells of one grid answer: logits, float32 [B, cells, K], and distances to the four sides in strides.

    Distances are float32 [B, cells, 4], also under autocast: in bfloat16 a side 400 px away moves by a pixel.
    """

    def __init__(self, width: int, num_categories: int) -> None:
        super().__init__()
        self.for_categories = nn.Sequential(_Convolution(width, width, 3), _Convolution(width, width, 3))
        self.for_boxes = nn.Sequential(_Convolution(width, width, 3), _Convolution(width, width, 3))
        self.category_logits = nn.Conv2d(width, num_categories, 1)
        self.distances = nn.Conv2d(width, 4, 1)
        first_logit, first_distance = -math.log(1 / _FIRST_SCORE - 1), math.log(math.expm1(_FIRST_DISTANCE))
        for layer, first in ((self.category_logits, first_logit), (self.distances, first_distance)):
            assert layer.bias is not None
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(layer.bias, first)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.category_logits(self.for_categories(features)).float()  # [B, K, h, w]
        distances = functional.softplus(self.distances(self.for_boxes(features)).float())  # [B, 4, h, w]
        return logits.flatten(2).transpose(1, 2), distances.flatten(2).transpose(1, 2)


class YoloModern(nn.Module):
    """The detector, with torchvision's interface."""

    def __init__(self, *, backbone: str, num_categories: int) -> None:
        super().__init__()
        self.backbone, channels = feature_maps(backbone, STRIDES)
        self.neck = Neck(channels, _WIDTH)
        self.heads = nn.ModuleList(Head(_WIDTH, num_categories) for _ in STRIDES)

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """images: float32 [3, h, w] in [0, 1] each. Losses of `targets` in training mode, else detections."""
        batch = as_batch(images, multiple_px=STRIDES[-1])
        logits, distances = self.answer(batch)
        centres, strides = cells(*batch.shape[-2:], device=batch.device)  # [A, 2], [A]
        boxes = boxes_from_distances(distances, centres, strides)  # [B, A, 4]
        if self.training:
            return _losses(logits, boxes, centres, strides, check_targets(images, targets))
        return [
            best_detections(of_boxes, of_logits.sigmoid(), height=image.shape[-2], width=image.shape[-1])
            for of_boxes, of_logits, image in zip(boxes, logits, images, strict=True)
        ]

    def answer(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, float32 [B, A, K], and distances in strides, [B, A, 4], of a normalised batch, [B, 3, H, W]."""
        maps = self.neck(list(self.backbone(batch).values()))
        answers = [head(one) for head, one in zip(self.heads, maps, strict=True)]
        logits, distances = (torch.cat(parts, dim=1) for parts in zip(*answers, strict=True))
        return logits, distances


def boxes_from_distances(distances: Tensor, centres: Tensor, strides: Tensor) -> Tensor:
    """float32 [..., A, 4] xyxy px from distances to the left, upper, right and lower side in strides, [..., A, 4]."""
    away = distances * strides[:, None]
    return torch.cat((centres - away[..., :2], centres + away[..., 2:]), dim=-1)


def quality_focal_loss(logits: Tensor, quality: Tensor) -> Tensor:
    """Li et al. 2020, equation 5, of every element of `logits` and `quality`, float32 [...] in [0, 1]."""
    difference = (quality - logits.sigmoid()).abs().pow(_FOCUS)
    return difference * functional.binary_cross_entropy_with_logits(logits, quality, reduction="none")


def cells(height: int, width: int, *, device: torch.device) -> tuple[Tensor, Tensor]:
    """Centres of all cells of an H x W batch, float32 [A, 2] xy px, and their strides, float32 [A] px."""
    centres, strides = [], []
    for stride in STRIDES:
        y = (torch.arange(height // stride, device=device, dtype=torch.float32) + 0.5) * stride
        x = (torch.arange(width // stride, device=device, dtype=torch.float32) + 0.5) * stride
        centres.append(torch.cartesian_prod(y, x).flip(1))
        strides.append(centres[-1].new_full((len(centres[-1]),), stride))
    return torch.cat(centres), torch.cat(strides)


def _losses(
    logits: Tensor, boxes: Tensor, centres: Tensor, strides: Tensor, targets: Sequence[dict[str, Tensor]]
) -> dict[str, Tensor]:
    assignments = [
        assign(
            scores=of_logits.sigmoid(),
            boxes=of_boxes,
            centres=centres,
            strides=strides,
            target_boxes=target["boxes"],
            target_labels=target["labels"] - 1,
        )
        for of_logits, of_boxes, target in zip(logits.detach(), boxes.detach(), targets, strict=True)
    ]
    pairs = list(zip(assignments, targets, strict=True))
    quality = torch.stack([_wanted_scores(one, target, logits.shape[2]) for one, target in pairs])  # [B, A, K]
    weight = torch.stack([one.quality for one in assignments])  # [B, A]
    total = weight.sum().clamp(min=1.0)
    answering = torch.stack([one.objects for one in assignments]) >= 0  # [B, A]
    wanted = torch.cat([target["boxes"][one.objects[one.objects >= 0]] for one, target in pairs])
    apart: Tensor = complete_box_iou_loss(boxes[answering], wanted)
    return {
        "loss_categories": quality_focal_loss(logits, quality).sum() / total,
        "loss_boxes": _BOX_WEIGHT * (apart * weight[answering]).sum() / total,
    }


def _wanted_scores(assignment: Assignment, target: dict[str, Tensor], num_categories: int) -> Tensor:
    """float32 [A, K]: the quality at the category of the cell's object, 0 elsewhere."""
    wanted = assignment.quality.new_zeros(len(assignment.quality), num_categories)
    (answering,) = (assignment.objects >= 0).nonzero(as_tuple=True)
    wanted[answering, target["labels"][assignment.objects[answering]] - 1] = assignment.quality[answering]
    return wanted
