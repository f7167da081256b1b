"""From scores to detections: a threshold first, so that only what may be answered with is decoded and compared.

B images, C candidates of all of them, image after image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from models.backends.detection.parts import Detections


def best_of_groups(scores: Tensor, groups: Tensor, *, count: int, most: int) -> Tensor:
    """Positions of the `most` best of every group, int64, group after group.

    scores: float32 [C]; groups: int64 [C], from 0 to `count` - 1.
    """
    order = groups.argsort(stable=True)
    sizes = groups.bincount(minlength=count)
    if not len(groups) or int(sizes.max()) <= most:  # waits for the device here
        return order
    return torch.cat(
        [
            members if len(members) <= most else members[scores[members].topk(most).indices]
            for members in torch.split(order, sizes.tolist())
        ]
    )


def suppressed(
    boxes: Tensor, scores: Tensor, labels: Tensor, images: Tensor, *, count: int, iou_threshold: float, most: int
) -> Detections:
    """The best of every image, best first, without those that overlap a better one of their label.

    boxes: float32 [C, 4]; images: int64 [C], ascending, from 0 to `count` - 1. The suppression is torchvision's, an
    image at a time: one for all images would compare pairs that have nothing to do with each other, and offsets that
    keep them apart would cost precision.
    """
    sizes = images.bincount(minlength=count).tolist()
    detections = []
    for of_image in zip(*(torch.split(tensor, sizes) for tensor in (boxes, scores, labels)), strict=True):
        kept = batched_nms(*of_image, iou_threshold)[:most]
        chosen = (tensor[kept] for tensor in of_image)
        detections.append(dict(zip(("boxes", "scores", "labels"), chosen, strict=True)))
    return detections
