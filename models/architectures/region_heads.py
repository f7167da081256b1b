"""What R-CNN and Fast R-CNN share: which regions they learn from, and what they say about each.

P regions of all images, N objects, K categories without the background, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import box_iou

from models.architectures.box_coding import decode, encode
from models.architectures.detector_parts import best_detections
from models.architectures.region_proposals import compute_proposals

_OBJECT_IOU = 0.5  # from which a region is an example of the object: both papers
_OBJECT_SHARE = 0.25  # of the regions that are learned from: both papers


@dataclass(frozen=True, kw_only=True, slots=True)
class Regions:
    """Regions of one image to learn from."""

    boxes: Tensor  # float32 [n, 4] xyxy px
    labels: Tensor  # int64 [n], 0 for background
    moves: Tensor  # float32 [n, 4], to the object's box; 0 for background


class RegionHead(nn.Module):
    """A linear classifier over K + 1 and box regressors for each of K categories."""

    def __init__(self, features: int, num_categories: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(features, num_categories + 1)
        self.regressors = nn.Linear(features, 4 * num_categories)
        for layer, deviation in ((self.classifier, 0.01), (self.regressors, 0.001)):  # Girshick 2015, section 2.3
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """features: float32 [P, F]. Logits, float32 [P, K + 1], and moves, float32 [P, K, 4]."""
        moves = self.regressors(features).float()
        return self.classifier(features).float(), moves.view(len(features), self.regressors.out_features // 4, 4)


def proposals_of(images: Sequence[Tensor], proposals: Sequence[Tensor] | None) -> list[Tensor]:
    """`proposals` if there are any, else those of selective search; float32 [P, 4] xyxy px for each image.

    images: float32 [3, h, w] in [0, 1] each. Raises ProposalsUnavailable.
    """
    if proposals is not None:
        return [boxes.to(image) for boxes, image in zip(proposals, images, strict=True)]
    return [compute_proposals((image * 255).round().to(torch.uint8).cpu()).to(image) for image in images]


@torch.no_grad()
def sample_regions(proposals: Tensor, target: dict[str, Tensor], *, count: int, background_iou: float = 0.0) -> Regions:
    """At most `count` of `proposals`, float32 [P, 4], and of the objects' own boxes, by chance; see _OBJECT_SHARE.

    background_iou: background is what overlaps an object by less than _OBJECT_IOU and, where there is such, by at least
    this: near misses teach most (Girshick 2015, section 2.3).
    """
    boxes = torch.cat((proposals, target["boxes"]))
    if not len(target["boxes"]):
        chosen = _some(torch.ones(len(boxes), dtype=torch.bool, device=boxes.device), count)
        labels = torch.zeros(len(chosen), dtype=torch.int64, device=boxes.device)
        return Regions(boxes=boxes[chosen], labels=labels, moves=torch.zeros_like(boxes[chosen]))
    overlap, of_object = box_iou(boxes, target["boxes"]).max(1)
    objects = _some(overlap >= _OBJECT_IOU, round(count * _OBJECT_SHARE))
    background = overlap < _OBJECT_IOU
    near = background & (overlap >= background_iou)
    others = _some(near if bool(near.any()) else background, count - len(objects))
    chosen = torch.cat((objects, others))
    labels = target["labels"][of_object[chosen]]
    labels[len(objects) :] = 0
    moves = encode(target["boxes"][of_object[chosen]], boxes[chosen])
    moves[len(objects) :] = 0
    return Regions(boxes=boxes[chosen], labels=labels, moves=moves)


def region_losses(logits: Tensor, moves: Tensor, regions: Sequence[Regions]) -> dict[str, Tensor]:
    """Girshick 2015, equations 1 to 3, a region on average: smooth L1 counts for objects only.

    logits: float32 [P, K + 1]; moves: float32 [P, K, 4]; `regions` of all images, in the same order.
    """
    labels = torch.cat([one.labels for one in regions])
    wanted = torch.cat([one.moves for one in regions])
    (objects,) = (labels > 0).nonzero(as_tuple=True)
    apart = functional.smooth_l1_loss(moves[objects, labels[objects] - 1], wanted[objects], reduction="sum")
    return {
        "loss_categories": functional.cross_entropy(logits, labels),
        "loss_boxes": apart / max(1, len(labels)),
    }


def region_detections(
    logits: Tensor, moves: Tensor, proposals: Sequence[Tensor], images: Sequence[Tensor]
) -> list[dict[str, Tensor]]:
    """Detections of every image; logits: float32 [P, K + 1] and moves: float32 [P, K, 4] of all images' proposals."""
    counts = [len(boxes) for boxes in proposals]
    scores = logits.softmax(1)[:, 1:]
    boxes = decode(moves, torch.cat(list(proposals))[:, None])  # [P, K, 4]
    return [
        best_detections(of_boxes, of_scores, height=image.shape[-2], width=image.shape[-1])
        for of_boxes, of_scores, image in zip(
            torch.split(boxes, counts), torch.split(scores, counts), images, strict=True
        )
    ]


def _some(wanted: Tensor, count: int) -> Tensor:
    """Indices of at most `count` of the true ones, int64, chosen by torch's generator."""
    candidates = wanted.nonzero().flatten()
    return candidates[torch.randperm(len(candidates), device=wanted.device)[:count]]
