"""Faster, Mask and Keypoint R-CNN (Ren et al. 2015; He et al. 2017): proposals, regions, boxes, and what lies in them.

B images, A anchors of all levels, P proposals of an image, R regions of all images, K categories and the background.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.roi_heads import keypointrcnn_inference, maskrcnn_inference
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import clip_boxes_to_image

from models.backends.detection.candidates import suppressed
from models.backends.detection.grids import Grids
from models.backends.detection.parts import Detections, Network, Part
from models.backends.detection.pixels import Pixels
from models.backends.detection.proposals import propose
from models.backends.detection.region_pooling import Pooling
from models.backends.detection.ssd import pixel_part

_SMALLEST_SIDE_PX = 1e-2  # torchvision's


class ProposalNetwork(nn.Module):
    """Pixels to objectness, float32 [B, A], corrections of the anchors, float32 [B, A, 4], and the maps to cut from."""

    def __init__(self, module: GeneralizedRCNN) -> None:
        super().__init__()
        self.backbone, self.head = module.backbone, module.rpn.head
        self.names = frozenset(module.roi_heads.box_roi_pool.featmap_names)
        transform = module.transform
        self.pixels = Pixels(mean=transform.image_mean, std=transform.image_std, multiple_px=transform.size_divisible)

    def forward(self, batch: Tensor) -> tuple[Tensor, ...]:
        """batch: uint8 [B, 3, h, w]."""
        dtype = next(self.backbone.parameters()).dtype
        maps = self.backbone(self.pixels.prepare(batch, dtype))
        objectness, codes = concat_box_prediction_layers(*self.head(list(maps.values())))
        shape = (batch.shape[0], -1)
        answers = objectness.reshape(shape), codes.reshape(*shape, 4)
        return tuple(one.float() for one in (*answers, *(maps[name] for name in maps if name in self.names)))


class BoxNetwork(nn.Module):
    """What lies under regions, float32 [R, C, n, n], to scores, float32 [R, K], and corrections, float32 [R, K, 4]."""

    def __init__(self, module: GeneralizedRCNN) -> None:
        super().__init__()
        self.head, self.predictor = module.roi_heads.box_head, module.roi_heads.box_predictor

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        logits, codes = self.predictor(self.head(pooled.to(next(self.head.parameters()).dtype)))
        return logits.float().softmax(-1), codes.float().unflatten(1, (-1, 4))


class SplitTwoStage:
    """See SplitDetector."""

    def __init__(self, module: GeneralizedRCNN) -> None:
        self.module = module
        self._pixels = (network := ProposalNetwork(module)).pixels
        self._grids = Grids(module.backbone, module.rpn.anchor_generator)
        heads = module.roi_heads
        self._poolings = {
            name: Pooling.of(pool)
            for name in ("box_roi_pool", "mask_roi_pool", "keypoint_roi_pool")
            if (pool := getattr(heads, name)) is not None
        }
        self.networks: Mapping[str, nn.Module] = {"network": network, "box_head": BoxNetwork(module)}

    def parts(self, height: int, width: int) -> tuple[Part, ...]:
        """See SplitDetector."""
        cells = self._poolings["box_roi_pool"].cells
        examples = (torch.zeros(2, self.module.backbone.out_channels, cells, cells),)
        most = 32 * self.module.rpn.post_nms_top_n()
        return (
            pixel_part(self.networks["network"], height, width),
            Part(name="box_head", module=self.networks["box_head"], examples=examples, most_rows=most),
        )

    def detect(self, batch: Tensor, networks: Mapping[str, Network]) -> Detections:
        """See SplitDetector."""
        size: tuple[int, int] = (batch.shape[-2], batch.shape[-1])
        objectness, codes, *maps = networks["network"](batch)
        grid = self._grids.at(*self._pixels.padded(*size), objectness.device)
        regions, images = propose(self.module.rpn, objectness, codes, grid, size=size)
        pooled = self._pool("box_roi_pool", maps, regions, images, size)
        scores, codes = networks["box_head"](pooled)
        found = self._boxes(scores, codes, regions, images, size, count=len(batch))
        self._add_masks(found, maps, size)
        self._add_keypoints(found, maps, size)
        sizes = [size] * len(found)
        detections: Detections = self.module.transform.postprocess(found, sizes, sizes)  # pastes masks
        return detections

    def _pool(self, name: str, maps: list[Tensor], regions: Tensor, images: Tensor, size: tuple[int, int]) -> Tensor:
        return self._poolings[name].pool(maps, regions, images, height=self._pixels.padded(*size)[0])

    def _boxes(
        self, scores: Tensor, codes: Tensor, regions: Tensor, images: Tensor, size: tuple[int, int], *, count: int
    ) -> Detections:
        """scores: float32 [R, K]; codes: float32 [R, K, 4]; regions: float32 [R, 4]; images: int64 [R]."""
        heads = self.module.roi_heads
        is_candidate = scores > heads.score_thresh
        is_candidate[:, 0] = False
        places, labels = is_candidate.nonzero().unbind(1)
        boxes = heads.box_coder.decode_single(codes[places, labels], regions[places])
        boxes = clip_boxes_to_image(boxes, size)
        visible = ((boxes[:, 2:] - boxes[:, :2]) >= _SMALLEST_SIDE_PX).all(1).nonzero().flatten()
        places, labels = places[visible], labels[visible]
        return suppressed(
            boxes[visible],
            scores[places, labels],
            labels,
            images[places],
            count=count,
            iou_threshold=heads.nms_thresh,
            most=heads.detections_per_img,
        )

    def _add_masks(self, found: Detections, maps: list[Tensor], size: tuple[int, int]) -> None:
        heads = self.module.roi_heads
        if not heads.has_mask():
            return
        pooled = self._pool("mask_roi_pool", maps, *_together(found), size)
        logits = heads.mask_predictor(heads.mask_head(pooled.to(next(heads.mask_head.parameters()).dtype))).float()
        for one, masks in zip(found, maskrcnn_inference(logits, [one["labels"] for one in found]), strict=True):
            one["masks"] = masks

    def _add_keypoints(self, found: Detections, maps: list[Tensor], size: tuple[int, int]) -> None:
        heads = self.module.roi_heads
        if not heads.has_keypoint():
            return
        pooled = self._pool("keypoint_roi_pool", maps, *_together(found), size)
        dtype = next(heads.keypoint_head.parameters()).dtype
        logits = heads.keypoint_predictor(heads.keypoint_head(pooled.to(dtype))).float()
        answers = keypointrcnn_inference(logits, [one["boxes"] for one in found])
        for one, points, scores in zip(found, *answers, strict=True):
            one["keypoints"], one["keypoints_scores"] = points, scores


def _together(found: Detections) -> tuple[Tensor, Tensor]:
    """The boxes of all images, float32 [R, 4], and the image of each, int64 [R]."""
    boxes = torch.cat([one["boxes"] for one in found])
    counts = torch.tensor([len(one["boxes"]) for one in found], device=boxes.device)
    return boxes, torch.arange(len(found), device=boxes.device).repeat_interleave(counts)
