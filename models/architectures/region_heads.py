"""What R-CNN and Fast R-CNN share: the regions they learn from, their predictions per region, their description.

P regions of all images, N objects, K categories without the background, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import box_iou

from models.architectures.architecture import Architecture
from models.architectures.backbones import backbone_keys, backbone_option
from models.architectures.box_coding import decode, encode
from models.architectures.detector_parts import best_detections
from models.architectures.region_proposals import compute_proposals
from models.architectures.torchvision_detection import coco_categories
from models.manifest import ScalePreset

_OBJECT_IOU = 0.5  # smallest overlap of a region that is an example of the object: both papers
_OBJECT_SHARE = 0.25  # share of objects among the regions to learn from: both papers


def region_detector(
    name: str,
    *,
    preset: ScalePreset,
    parameters: int,
    backbone_description: str,
    build: Callable[[str, int], nn.Module],
) -> Architecture:
    """Description of a detector that classifies proposed regions.

    build: returns the network, from the name of its backbone and the number of categories.
    """
    return Architecture(
        name=name,
        tasks=("detection",),
        family=name,
        parameters=parameters,
        preset=preset,
        options=(backbone_option(backbone_description),),
        backbone=lambda options: backbone_keys(options["backbone"]),
        uses_proposals=True,
        categories=coco_categories(),
        min_size_px=64,
        builder=lambda wanted: build(wanted.options["backbone"], wanted.num_categories),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Regions:
    """The regions of one image that the detector learns from in a step."""

    boxes: Tensor  # float32 [n, 4] xyxy px
    labels: Tensor  # int64 [n], 0 for background
    corrections: Tensor  # float32 [n, 4], from the region to the object's box; 0 for background


class RegionHead(nn.Module):
    """A linear classifier over K + 1 categories, and a box regressor for each of the K."""

    def __init__(self, features: int, num_categories: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(features, num_categories + 1)
        self.regressors = nn.Linear(features, 4 * num_categories)
        for layer, deviation in ((self.classifier, 0.01), (self.regressors, 0.001)):  # Girshick 2015, section 2.3
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """features: float32 [P, F]. Logits, float32 [P, K + 1], and corrections, float32 [P, K, 4]."""
        corrections = self.regressors(features).float()
        return self.classifier(features).float(), corrections.view(len(features), self.regressors.out_features // 4, 4)


def proposals_of(images: Sequence[Tensor], proposals: Sequence[Tensor] | None) -> list[Tensor]:
    """`proposals` if given, else the proposals of selective search; float32 [P, 4] xyxy px for each image.

    images: float32 [3, h, w] in [0, 1] each. Raises ProposalsUnavailable.
    """
    if proposals is not None:
        return [boxes.to(image) for boxes, image in zip(proposals, images, strict=True)]
    return [compute_proposals((image * 255).round().to(torch.uint8).cpu()).to(image) for image in images]


@torch.no_grad()
def sample_regions(proposals: Tensor, target: dict[str, Tensor], *, count: int, background_iou: float = 0.0) -> Regions:
    """At most `count` regions, drawn at random from `proposals`, float32 [P, 4], and from the objects' own boxes.

    At most _OBJECT_SHARE of them are objects. The others are background: they overlap every object by less than
    _OBJECT_IOU. background_iou: if there are such regions, only those that overlap an object by at least this are
    drawn as background, because near misses teach most (Girshick 2015, section 2.3).
    """
    boxes = torch.cat((proposals, target["boxes"]))
    if not len(target["boxes"]):
        chosen = _some(torch.ones(len(boxes), dtype=torch.bool, device=boxes.device), count)
        labels = torch.zeros(len(chosen), dtype=torch.int64, device=boxes.device)
        return Regions(boxes=boxes[chosen], labels=labels, corrections=torch.zeros_like(boxes[chosen]))
    overlap, of_object = box_iou(boxes, target["boxes"]).max(1)
    objects = _some(overlap >= _OBJECT_IOU, round(count * _OBJECT_SHARE))
    background = overlap < _OBJECT_IOU
    near = background & (overlap >= background_iou)
    others = _some(near if bool(near.any()) else background, count - len(objects))
    chosen = torch.cat((objects, others))
    labels = target["labels"][of_object[chosen]]
    labels[len(objects) :] = 0
    corrections = encode(target["boxes"][of_object[chosen]], boxes[chosen])
    corrections[len(objects) :] = 0
    return Regions(boxes=boxes[chosen], labels=labels, corrections=corrections)


def region_losses(logits: Tensor, corrections: Tensor, regions: Sequence[Regions]) -> dict[str, Tensor]:
    """The losses of Girshick 2015, equations 1 to 3, averaged over the regions; smooth L1 counts objects only.

    logits: float32 [P, K + 1]; corrections: float32 [P, K, 4]; regions: those of all images, in the same order.
    """
    labels = torch.cat([one.labels for one in regions])
    wanted = torch.cat([one.corrections for one in regions])
    (objects,) = (labels > 0).nonzero(as_tuple=True)
    apart = functional.smooth_l1_loss(corrections[objects, labels[objects] - 1], wanted[objects], reduction="sum")
    return {
        "loss_categories": functional.cross_entropy(logits, labels),
        "loss_boxes": apart / max(1, len(labels)),
    }


def region_detections(
    logits: Tensor, corrections: Tensor, proposals: Sequence[Tensor], images: Sequence[Tensor]
) -> list[dict[str, Tensor]]:
    """Returns the detections of every image.

    logits: float32 [P, K + 1]; corrections: float32 [P, K, 4]; both for the proposals of all images.
    """
    counts = [len(boxes) for boxes in proposals]
    scores = logits.softmax(1)[:, 1:]
    boxes = decode(corrections, torch.cat(list(proposals))[:, None])  # [P, K, 4]
    return [
        best_detections(of_boxes, of_scores, height=image.shape[-2], width=image.shape[-1])
        for of_boxes, of_scores, image in zip(
            torch.split(boxes, counts), torch.split(scores, counts), images, strict=True
        )
    ]


def _some(wanted: Tensor, count: int) -> Tensor:
    """int64 indices of at most `count` of the true values in `wanted`, drawn from torch's generator."""
    candidates = wanted.nonzero().flatten()
    return candidates[torch.randperm(len(candidates), device=wanted.device)[:count]]
