"""SSD and SSDLite (Liu et al. 2016; Sandler et al. 2018): a softmax over categories at every default box.

B images, A anchors, K categories without the background, C candidates.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchvision.models.detection.ssd import SSD
from torchvision.ops import clip_boxes_to_image

from models.backends.detection.candidates import best_of_groups, suppressed
from models.backends.detection.grids import Grids
from models.backends.detection.parts import Detections, Network
from models.backends.detection.pixels import Pixels
from models.backends.part import Part
from models.backends.views import LARGEST_BATCH


class SSDNetwork(nn.Module):
    """Pixels to scores, float32 [B, A, K], and corrections of the anchors, float32 [B, A, 4]."""

    def __init__(self, module: SSD) -> None:
        super().__init__()
        self.backbone, self.head = module.backbone, module.head
        self.pixels = Pixels(mean=module.transform.image_mean, std=module.transform.image_std, multiple_px=1)

    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """batch: uint8 [B, 3, h, w], of the size that the network is made for."""
        dtype = next(self.backbone.parameters()).dtype
        answers = self.head(list(self.backbone(self.pixels.prepare(batch).to(dtype)).values()))
        return answers["cls_logits"].float().softmax(-1)[..., 1:], answers["bbox_regression"].float()


class SplitSSD:
    """See SplitDetector."""

    def __init__(self, module: SSD) -> None:
        self.module = module
        self._grids = Grids(module.backbone, module.anchor_generator)
        self.networks: Mapping[str, nn.Module] = {"network": SSDNetwork(module)}

    def parts(self) -> tuple[Part, ...]:
        """See SplitDetector."""
        width, height = self.module.transform.fixed_size  # its default boxes are for images of one size
        example = torch.zeros(2, 3, height, width, dtype=torch.uint8)
        return (Part(name="network", module=self.networks["network"], example=example, most_rows=LARGEST_BATCH),)

    def detect(self, batch: Tensor, networks: Mapping[str, Network]) -> Detections:
        """See SplitDetector."""
        module, (height, width) = self.module, batch.shape[-2:]
        scores, codes = networks["network"](batch)
        anchors = self._grids.at(height, width, scores.device).anchors
        images, places, categories = (scores > module.score_thresh).nonzero().unbind(1)  # [C]
        values = scores[images, places, categories]
        count = scores.shape[2]
        best = best_of_groups(
            values, images * count + categories, count=len(batch) * count, most=module.topk_candidates
        )
        images, places, categories = images[best], places[best], categories[best]
        boxes = module.box_coder.decode_single(codes[images, places], anchors[places])
        return suppressed(
            clip_boxes_to_image(boxes, (height, width)),
            values[best],
            categories + 1,
            images,
            count=len(batch),
            iou_threshold=module.nms_thresh,
            most=module.detections_per_img,
        )
