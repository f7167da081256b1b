"""R-CNN: regions with CNN features (Girshick et al. 2014).

Every proposal is cut out, warped to 224 x 224 px with some context, and classified by the CNN alone. That takes about
2000 passes per image; Fast R-CNN needs one.

Changed from the paper: a linear classifier with softmax and the box regressors are trained together with the CNN. The
paper trains support vector machines after it. Girshick 2015, section 5.4, measures no loss from this.

B images, P regions of all images, K categories.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from models.architectures.architecture import Architecture, register
from models.architectures.backbones import feature_maps
from models.architectures.detector_parts import check_targets, normalised
from models.architectures.region_heads import (
    RegionHead,
    proposals_of,
    region_detections,
    region_detector,
    region_losses,
    sample_regions,
)
from models.manifest import ScalePreset

WARPED_PX = 224
CONTEXT_PX = 16  # on each side of the warped region: appendix A
_STRIDE = 32
_REGIONS_PER_IMAGE = 32  # to learn from
_REGIONS_PER_PASS = 64  # through the CNN: all 2000 at once would take gigabytes of memory


class RCNN(nn.Module):
    """The detector, with torchvision's interface; `propose`, `extract` and `classify` are its three stages."""

    def __init__(self, backbone: str, num_categories: int) -> None:
        super().__init__()
        self.backbone, (features,) = feature_maps(backbone, (_STRIDE,))
        self.head = RegionHead(features, num_categories)

    def forward(
        self,
        images: list[Tensor],
        targets: list[dict[str, Tensor]] | None = None,
        proposals: list[Tensor] | None = None,
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """The losses of `targets` in training mode, else the detections.

        images: float32 [3, h, w] in [0, 1] each. proposals: float32 [P, 4] xyxy px for each image; None: selective
        search finds them. Raises ProposalsUnavailable.
        """
        found = self.propose(images, proposals)
        if self.training:
            regions = [
                sample_regions(boxes, target, count=_REGIONS_PER_IMAGE)
                for boxes, target in zip(found, check_targets(images, targets), strict=True)
            ]
            logits, corrections = self.classify(self.extract(images, [one.boxes for one in regions]))
            return region_losses(logits, corrections, regions)
        logits, corrections = self.classify(self.extract(images, found))
        return region_detections(logits, corrections, found, images)

    def propose(self, images: Sequence[Tensor], proposals: Sequence[Tensor] | None = None) -> list[Tensor]:
        """First stage: float32 [P, 4] xyxy px for each image."""
        return proposals_of(images, proposals)

    def extract(self, images: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Second stage: the CNN's features of every region, float32 [P, F], image by image."""
        parts = []
        for image, of_image in zip(images, boxes, strict=True):
            pixels = normalised(image)
            for some in torch.split(of_image, _REGIONS_PER_PASS):
                warped = warp(pixels, some).contiguous(memory_format=torch.channels_last)
                (maps,) = self.backbone(warped).values()  # [n, F, 7, 7]
                parts.append(maps.mean((2, 3)))
        return torch.cat(parts)

    def classify(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Third stage: logits, float32 [P, K + 1], and corrections, float32 [P, K, 4], of all images' regions."""
        answer: tuple[Tensor, Tensor] = self.head(features)
        return answer


def warp(image: Tensor, boxes: Tensor) -> Tensor:
    """Regions of `image`, float32 [3, h, w], each stretched to a square: float32 [P, 3, 224, 224].

    The box fills the square except for CONTEXT_PX on each side, which show its surroundings (appendix A, "warp").
    Pixels outside the image are 0. boxes: float32 [P, 4] xyxy px.
    """
    grown = (boxes[:, 2:] - boxes[:, :2]) * (CONTEXT_PX / (WARPED_PX - 2 * CONTEXT_PX))
    with_context = torch.cat((boxes[:, :2] - grown, boxes[:, 2:] + grown), dim=1)
    warped: Tensor = roi_align(image[None], [with_context], WARPED_PX, aligned=True)  # averages where it shrinks
    return warped


@register("rcnn", task="detection")
def rcnn(name: str) -> Architecture:
    """The catalogue's entry."""
    return region_detector(
        name,
        preset=ScalePreset(shorter_px=500, longer_px=833),
        parameters=11_407_875,
        backbone_description="The CNN of a region; mobilenet_v3_small is for CPUs.",
        build=RCNN,
    )
