"""Fast R-CNN (Girshick 2015): one pass of the CNN per image; all proposals share its feature map.

RoI pooling turns the part of the map under each proposal into a grid of fixed size. After two hidden layers, a
classifier and box regressors are trained together with the CNN.

Changed from the paper: the CNN is one of torchvision's, up to its map of stride 16, and the hidden layers are 512 wide
instead of VGG's 4096.

B images, P regions of all images, K categories.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.ops import roi_pool

from models.architectures.architecture import Architecture, register
from models.architectures.backbones import feature_maps
from models.architectures.detector_parts import as_batch, check_targets
from models.architectures.region_heads import (
    RegionHead,
    proposals_of,
    region_detections,
    region_detector,
    region_losses,
    sample_regions,
)
from models.manifest import ScalePreset

_STRIDE = 16
_POOLED = 7  # cells per side: section 2.1
_HIDDEN = 512
_REGIONS_PER_IMAGE = 64  # to learn from: section 2.3
_BACKGROUND_IOU = 0.1


class FastRCNN(nn.Module):
    """The detector, with torchvision's interface; `propose`, `extract` and `classify` are its three stages."""

    def __init__(self, backbone: str, num_categories: int) -> None:
        super().__init__()
        self.backbone, (channels,) = feature_maps(backbone, (_STRIDE,))
        self.hidden = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * _POOLED**2, _HIDDEN),
            nn.ReLU(),
            nn.Linear(_HIDDEN, _HIDDEN),
            nn.ReLU(),
        )
        self.head = RegionHead(_HIDDEN, num_categories)

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
        found, maps = self.propose(images, proposals), self.extract(images)
        if self.training:
            regions = [
                sample_regions(boxes, target, count=_REGIONS_PER_IMAGE, background_iou=_BACKGROUND_IOU)
                for boxes, target in zip(found, check_targets(images, targets), strict=True)
            ]
            logits, corrections = self.classify(maps, [one.boxes for one in regions])
            return region_losses(logits, corrections, regions)
        logits, corrections = self.classify(maps, found)
        return region_detections(logits, corrections, found, images)

    def propose(self, images: Sequence[Tensor], proposals: Sequence[Tensor] | None = None) -> list[Tensor]:
        """First stage: float32 [P, 4] xyxy px for each image."""
        return proposals_of(images, proposals)

    def extract(self, images: Sequence[Tensor]) -> Tensor:
        """Second stage: the CNN's map of every image, float32 [B, C, H / 16, W / 16]."""
        (maps,) = self.backbone(as_batch(images, multiple_px=_STRIDE)).values()
        features: Tensor = maps
        return features

    def classify(self, maps: Tensor, boxes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Third stage: logits, float32 [P, K + 1], and corrections, float32 [P, K, 4], of all images' regions."""
        pooled = roi_pool(maps.float().contiguous(), list(boxes), _POOLED, spatial_scale=1 / _STRIDE)
        answer: tuple[Tensor, Tensor] = self.head(self.hidden(pooled))
        return answer


@register("fast_rcnn", task="detection")
def fast_rcnn(name: str) -> Architecture:
    """The catalogue's entry."""
    return region_detector(
        name,
        preset=ScalePreset(shorter_px=600, longer_px=1000),  # section 5.2
        parameters=9_699_843,
        backbone_description="The CNN of an image; mobilenet_v3_small is for CPUs.",
        build=FastRCNN,
    )
