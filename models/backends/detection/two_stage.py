"""Faster, Mask and Keypoint R-CNN (Ren et al. 2015; He et al. 2017): proposals, regions, boxes, masks and keypoints.

B images, A anchors of all levels, P proposals of an image, R regions of all images, K categories and the background.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.roi_heads import keypointrcnn_inference, maskrcnn_inference
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import clip_boxes_to_image

from models.backends.detection.candidates import suppressed
from models.backends.detection.grids import Grids
from models.backends.detection.parts import Detections, Network, run_rows
from models.backends.detection.pixels import Pixels
from models.backends.detection.proposals import propose
from models.backends.detection.region_pooling import Pooling
from models.backends.part import Part
from models.backends.views import LARGEST_BATCH

_SMALLEST_SIDE_PX = 1e-2  # torchvision's


class ProposalNetwork(nn.Module):
    """Normalised pixels to objectness, float32 [B, A], corrections of the anchors, float32 [B, A, 4], and the maps to
    cut from, float32 [B, h, w, C].
    """

    def __init__(self, module: GeneralizedRCNN) -> None:
        super().__init__()
        self.backbone, self.head = module.backbone, module.rpn.head
        self.names = frozenset(module.roi_heads.box_roi_pool.featmap_names)

    def forward(self, batch: Tensor) -> tuple[Tensor, ...]:
        """batch: float32 [B, 3, H, W]."""
        maps = self.backbone(batch.to(next(self.backbone.parameters()).dtype))
        objectness, codes = concat_box_prediction_layers(*self.head(list(maps.values())))
        shape = (batch.shape[0], -1)
        answers = objectness.reshape(shape), codes.reshape(*shape, 4)
        cut_from = (one.permute(0, 2, 3, 1) for name, one in maps.items() if name in self.names)
        return tuple(one.float().contiguous() for one in (*answers, *cut_from))


class BoxNetwork(nn.Module):
    """Pooled regions, float32 [R, n, n, C], to scores, float32 [R, K], and corrections, float32 [R, K, 4]."""

    def __init__(self, module: GeneralizedRCNN) -> None:
        super().__init__()
        self.head, self.predictor = module.roi_heads.box_head, module.roi_heads.box_predictor

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """pooled: float32 [R, n, n, C]."""
        logits, codes = self.predictor(self.head(_channels_first(pooled, self.head)))
        return logits.float().softmax(-1), codes.float().unflatten(1, (-1, 4))


class ChannelsLastHead(nn.Module):
    """torchvision's `TwoMLPHead` with its weights in channels-last order, so its input needs no copy."""

    def __init__(self, head: TwoMLPHead, channels: int) -> None:
        super().__init__()
        rows, inputs = head.fc6.weight.shape
        self.fc6, self.fc7 = copy.deepcopy(head.fc6), head.fc7
        by_place = head.fc6.weight.detach().view(rows, channels, inputs // channels).transpose(1, 2)
        self.fc6.weight = nn.Parameter(by_place.reshape(rows, inputs).clone(), requires_grad=False)

    def forward(self, pooled: Tensor) -> Tensor:
        """pooled: [R, C, n, n], channels last. Returns [R, D]."""
        hidden = functional.relu(self.fc6(pooled.permute(0, 2, 3, 1).flatten(start_dim=1)))
        return functional.relu(self.fc7(hidden))


class PointNetwork(nn.Module):
    """Pooled boxes, float32 [R, n, n, C], to logits of a map per category or keypoint, float32 [R, K, m, m]."""

    def __init__(self, head: nn.Module, predictor: nn.Module) -> None:
        super().__init__()
        self.head, self.predictor = head, predictor

    def forward(self, pooled: Tensor) -> tuple[Tensor]:
        """pooled: float32 [R, n, n, C]."""
        return (self.predictor(self.head(_channels_first(pooled, self.head))).float(),)


def _channels_first(pooled: Tensor, head: nn.Module) -> Tensor:
    return pooled.permute(0, 3, 1, 2).to(next(head.parameters()).dtype)


class SplitTwoStage:
    """See SplitDetector."""

    def __init__(self, module: GeneralizedRCNN) -> None:
        self.module = module
        transform = module.transform
        self._pixels = Pixels(mean=transform.image_mean, std=transform.image_std, multiple_px=transform.size_divisible)
        self._grids = Grids(module.backbone, module.rpn.anchor_generator)
        heads = module.roi_heads
        if isinstance(heads.box_head, TwoMLPHead):
            heads.box_head = ChannelsLastHead(heads.box_head, module.backbone.out_channels)
        self._poolings = {
            name: Pooling.of(pool)
            for name in ("box_roi_pool", "mask_roi_pool", "keypoint_roi_pool")
            if (pool := getattr(heads, name)) is not None
        }
        networks: dict[str, nn.Module] = {"network": ProposalNetwork(module), "box_head": BoxNetwork(module)}
        if heads.has_mask():
            networks["mask_head"] = PointNetwork(heads.mask_head, heads.mask_predictor)
        if heads.has_keypoint():
            networks["keypoint_head"] = PointNetwork(heads.keypoint_head, heads.keypoint_predictor)
        self.networks: Mapping[str, nn.Module] = networks

    def parts(self) -> tuple[Part, ...]:
        """See SplitDetector."""
        rows = dict.fromkeys(self.networks, self.module.roi_heads.detections_per_img)
        rows["box_head"] = self.module.rpn.post_nms_top_n()
        return (
            self._pixels.part(self.networks["network"]),
            *(self._region_part(name, rows[name]) for name in self.networks if name != "network"),
        )

    def _region_part(self, name: str, rows_per_image: int) -> Part:
        cells = self._poolings[name.replace("_head", "_roi_pool")].cells
        example = torch.zeros(2, cells, cells, self.module.backbone.out_channels)
        most = LARGEST_BATCH * rows_per_image
        return Part(name=name, module=self.networks[name], example=example, most_rows=most)

    def detect(self, batch: Tensor, networks: Mapping[str, Network]) -> Detections:
        """See SplitDetector."""
        size: tuple[int, int] = (batch.shape[-2], batch.shape[-1])
        objectness, codes, *maps = networks["network"](self._pixels.prepare(batch))
        grid = self._grids.at(*self._pixels.padded(*size), objectness.device)
        regions, images = propose(self.module.rpn, objectness, codes, grid, size=size)
        pooled = self._pool("box_roi_pool", maps, regions, images, size)
        scores, codes = run_rows(networks["box_head"], pooled)
        found = self._boxes(scores, codes, regions, images, size, count=len(batch))
        self._add_masks(found, maps, size, networks)
        self._add_keypoints(found, maps, size, networks)
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

    def _add_masks(
        self, found: Detections, maps: list[Tensor], size: tuple[int, int], networks: Mapping[str, Network]
    ) -> None:
        if "mask_head" not in self.networks:
            return
        (logits,) = run_rows(networks["mask_head"], self._pool("mask_roi_pool", maps, *_together(found), size))
        for one, masks in zip(found, maskrcnn_inference(logits, [one["labels"] for one in found]), strict=True):
            one["masks"] = masks

    def _add_keypoints(
        self, found: Detections, maps: list[Tensor], size: tuple[int, int], networks: Mapping[str, Network]
    ) -> None:
        if "keypoint_head" not in self.networks:
            return
        (logits,) = run_rows(networks["keypoint_head"], self._pool("keypoint_roi_pool", maps, *_together(found), size))
        answers = keypointrcnn_inference(logits, [one["boxes"] for one in found])
        for one, points, scores in zip(found, *answers, strict=True):
            one["keypoints"], one["keypoints_scores"] = points, scores


def _together(found: Detections) -> tuple[Tensor, Tensor]:
    """The boxes of all images, float32 [R, 4], and the image of each, int64 [R]."""
    boxes = torch.cat([one["boxes"] for one in found])
    counts = torch.tensor([len(one["boxes"]) for one in found], device=boxes.device)
    return boxes, torch.arange(len(found), device=boxes.device).repeat_interleave(counts)
