"""R-CNN: regions with CNN features (Girshick et al. 2014).

Every proposal is cut out, warped to 224 x 224 px with some context, and goes through a CNN of its own: about 2000
passes an image, which is what Fast R-CNN does away with.

Changed from the paper: one linear classifier with softmax learns along with the CNN instead of support vector machines
after it (Girshick 2015, section 5.4, measures no loss), and so do the box regressors.

B images, P regions of all images, K categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from models.architectures.architecture import Architecture, Option
from models.architectures.backbones import backbone_keys, feature_maps
from models.architectures.detector_parts import check_targets, normalised
from models.architectures.region_heads import (
    RegionHead,
    proposals_of,
    region_detections,
    region_losses,
    sample_regions,
)
from models.architectures.torchvision_detection import coco_categories
from models.manifest import ScalePreset

NAME = "rcnn"
WARPED_PX = 224
CONTEXT_PX = 16  # of the warped picture, on each side: appendix A
_STRIDE = 32
_REGIONS_OF_AN_IMAGE = 32  # to learn from
_REGIONS_AT_ONCE = 64  # through the CNN: 2000 take gigabytes


class RCNN(nn.Module):
    """The detector, with torchvision's interface; `propose`, `extract` and `classify` are its three stages."""

    def __init__(self, *, backbone: str, num_categories: int) -> None:
        super().__init__()
        self.backbone, (features,) = feature_maps(backbone, (_STRIDE,))
        self.head = RegionHead(features, num_categories)

    def forward(
        self,
        images: list[Tensor],
        targets: list[dict[str, Tensor]] | None = None,
        proposals: list[Tensor] | None = None,
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """images: float32 [3, h, w] in [0, 1] each. Losses of `targets` in training mode, else detections.

        proposals: float32 [P, 4] xyxy px for each image; None: selective search finds them.
        Raises ProposalsUnavailable.
        """
        found = self.propose(images, proposals)
        if self.training:
            regions = [
                sample_regions(boxes, target, count=_REGIONS_OF_AN_IMAGE)
                for boxes, target in zip(found, check_targets(images, targets), strict=True)
            ]
            logits, moves = self.classify(self.extract(images, [one.boxes for one in regions]))
            return region_losses(logits, moves, regions)
        logits, moves = self.classify(self.extract(images, found))
        return region_detections(logits, moves, found, images)

    def propose(self, images: Sequence[Tensor], proposals: Sequence[Tensor] | None = None) -> list[Tensor]:
        """First stage: float32 [P, 4] xyxy px for each image."""
        return proposals_of(images, proposals)

    def extract(self, images: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Second stage: the CNN's features of every region, float32 [P, F], the images' one after the other."""
        parts = []
        for image, of_image in zip(images, boxes, strict=True):
            pixels = normalised(image)
            for some in torch.split(of_image, _REGIONS_AT_ONCE):
                warped = warp(pixels, some).contiguous(memory_format=torch.channels_last)
                (maps,) = self.backbone(warped).values()  # [n, F, 7, 7]
                parts.append(maps.mean((2, 3)))
        return torch.cat(parts)

    def classify(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Third stage: logits, float32 [P, K + 1], and moves, float32 [P, K, 4], of all images' regions."""
        answer: tuple[Tensor, Tensor] = self.head(features)
        return answer


def warp(image: Tensor, boxes: Tensor) -> Tensor:
    """Regions of `image`, float32 [3, h, w], each as a square: float32 [P, 3, 224, 224].

    Appendix A, "warp": the box is stretched to all but CONTEXT_PX on each side, which show what lies around it; what
    lies outside the picture is 0. boxes: float32 [P, 4] xyxy px.
    """
    grown = (boxes[:, 2:] - boxes[:, :2]) * (CONTEXT_PX / (WARPED_PX - 2 * CONTEXT_PX))
    with_context = torch.cat((boxes[:, :2] - grown, boxes[:, 2:] + grown), dim=1)
    warped: Tensor = roi_align(image[None], [with_context], WARPED_PX, aligned=True)  # averages where it shrinks
    return warped


def rcnn() -> Architecture:
    """The catalogue's entry."""
    return Architecture(
        name=NAME,
        tasks=("detection",),
        family=NAME,
        parameters=11_407_875,
        preset=ScalePreset(shorter_px=500, longer_px=833),
        options=(
            Option(
                name="backbone",
                choices=("resnet18", "resnet34", "resnet50", "mobilenet_v3_small"),
                description="The CNN of a region; mobilenet_v3_small is for CPUs.",
            ),
        ),
        backbone=lambda options: backbone_keys(options["backbone"]),
        uses_proposals=True,
        weights=(),
        default_weights=None,
        categories=coco_categories(),
        min_size_px=64,
        builder=_build,
    )


def _build(
    *,
    num_categories: int,
    image_size_px: int,  # noqa: ARG001 - it takes any
    auxiliary: bool,  # noqa: ARG001 - it has none
    options: Mapping[str, str],
) -> nn.Module:
    return RCNN(backbone=options["backbone"], num_categories=num_categories)
