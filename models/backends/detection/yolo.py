"""Our `yolo`, the modern one: a sigmoid for every category at every cell of three grids.

B images, A cells, K categories, C candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image

from models.architectures import detector_parts
from models.architectures.yolo_modern import STRIDES, YoloModern, boxes_from_distances, cells
from models.backends.detection.candidates import best_of_groups, suppressed
from models.backends.detection.grids import SIZES_KEPT
from models.backends.detection.parts import Detections, Network
from models.backends.detection.pixels import Pixels
from models.backends.detection.sigmoid_heads import candidates
from models.backends.part import Part
from models.manifest import IMAGENET_MEAN, IMAGENET_STD


class YoloNetwork(nn.Module):
    """Normalised pixels to logits, float32 [B, A, K], and distances to boxes' sides in strides, float32 [B, A, 4]."""

    def __init__(self, module: YoloModern) -> None:
        super().__init__()
        self.module = module

    def forward(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """batch: float32 [B, 3, H, W]."""
        return self.module.answer(batch.to(next(self.module.parameters()).dtype))


class SplitYolo:
    """See SplitDetector."""

    def __init__(self, module: YoloModern) -> None:
        self.module = module
        self._pixels = Pixels(mean=IMAGENET_MEAN, std=IMAGENET_STD, multiple_px=STRIDES[-1])
        self._cells = lru_cache(maxsize=SIZES_KEPT)(cells)
        self.networks: Mapping[str, nn.Module] = {"network": YoloNetwork(module)}

    def parts(self) -> tuple[Part, ...]:
        """See SplitDetector."""
        return (self._pixels.part(self.networks["network"]),)

    def detect(self, batch: Tensor, networks: Mapping[str, Network]) -> Detections:
        """See SplitDetector. It chooses boxes as `best_detections` does for one image."""
        height, width = batch.shape[-2:]
        logits, distances = networks["network"](self._pixels.prepare(batch))
        centres, strides = self._cells(*self._pixels.padded(height, width), device=logits.device)
        images, places, labels, scores = candidates(logits, threshold=detector_parts.SCORE_THRESHOLD)
        best = best_of_groups(scores, images, count=len(batch), most=detector_parts.MAX_CANDIDATES)
        images, places, labels, scores = images[best], places[best], labels[best] + 1, scores[best]
        boxes = boxes_from_distances(distances[images, places], centres[places], strides[places])
        boxes = clip_boxes_to_image(boxes, (height, width))
        visible = ((boxes[:, 2:] - boxes[:, :2]) > detector_parts.SMALLEST_SIDE_PX).all(1).nonzero().flatten()
        return suppressed(
            boxes[visible],
            scores[visible],
            labels[visible],
            images[visible],
            count=len(batch),
            iou_threshold=detector_parts.IOU_THRESHOLD,
            most=detector_parts.MAX_DETECTIONS,
        )
