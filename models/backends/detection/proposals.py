"""Region proposals (Ren et al. 2015) of a batch: only the best anchors of each level are decoded.

B images, A anchors of all levels, P candidates of an image, R proposals of all images.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import batched_nms, clip_boxes_to_image

from models.backends.detection.grids import Grid


def propose(
    network: RegionProposalNetwork, objectness: Tensor, codes: Tensor, grid: Grid, *, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Boxes, float32 [R, 4] xyxy px, and the image of each, int64 [R], image after image, best first.

    objectness: float32 [B, A], logits; codes: float32 [B, A, 4]; size: height and width of the images, px.
    """
    best = _best_of_levels(objectness, grid.counts, network.pre_nms_top_n())  # [B, P]
    image = torch.arange(len(best), device=best.device)[:, None]
    boxes = network.box_coder.decode_single(codes[image, best].flatten(0, 1), grid.anchors[best].flatten(0, 1))
    boxes = clip_boxes_to_image(boxes, size).view(*best.shape, 4)
    scores = objectness[image, best].sigmoid()
    is_kept = ((boxes[..., 2:] - boxes[..., :2]) >= network.min_size).all(2) & (scores >= network.score_thresh)
    levels = grid.levels[best]
    proposals = []
    for of_image in zip(boxes, scores, levels, is_kept, strict=True):
        found, values, level, kept = of_image
        candidates = found[kept]
        chosen = batched_nms(candidates, values[kept], level[kept], network.nms_thresh)[: network.post_nms_top_n()]
        proposals.append(candidates[chosen])
    counts = torch.tensor([len(one) for one in proposals], device=best.device)
    return torch.cat(proposals), image[:, 0].repeat_interleave(counts)


def _best_of_levels(objectness: Tensor, counts: tuple[int, ...], most: int) -> Tensor:
    """Positions of the `most` best anchors of each level, int64 [B, P]."""
    chosen, start = [], 0
    for of_level in torch.split(objectness, list(counts), dim=1):
        chosen.append(of_level.topk(min(most, of_level.shape[1]), dim=1).indices + start)
        start += of_level.shape[1]
    return torch.cat(chosen, dim=1)
