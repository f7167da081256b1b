"""What our own detectors share: images made a batch, and boxes made detections.

B images, H x W their batch's size, M boxes before and N after the choice, K categories.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

from models.manifest import IMAGENET_MEAN, IMAGENET_STD

SCORE_THRESHOLD = 0.01
IOU_THRESHOLD = 0.7  # little is suppressed here: models.architectures.detection_outputs decides
MAX_CANDIDATES = 1000  # that go into non-maximum suppression
MAX_DETECTIONS = 300
SMALLEST_SIDE_PX = 1e-2


def as_batch(images: Sequence[Tensor], *, multiple_px: int) -> Tensor:
    """float32 [3, h, w] in [0, 1] each as one float32 [B, 3, H, W], of ImageNet's mean and deviation.

    Images lie in the upper left corner; the rest is 0, the mean. H and W are multiples of `multiple_px`.
    """
    height, width = (-(-max(image.shape[side] for image in images) // multiple_px) * multiple_px for side in (-2, -1))
    # Channels last: convolutions of a CPU take half the time, and those of a GPU with tensor cores less too.
    batch = images[0].new_zeros(len(images), 3, height, width).to(memory_format=torch.channels_last)
    for into, image in zip(batch, images, strict=True):
        into[:, : image.shape[-2], : image.shape[-1]] = normalised(image)
    return batch


def normalised(image: Tensor) -> Tensor:
    """float32 [..., 3, h, w] in [0, 1] with ImageNet's mean and deviation."""
    mean, std = (image.new_tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (image - mean) / std


def best_detections(boxes: Tensor, scores: Tensor, *, height: int, width: int) -> dict[str, Tensor]:
    """The detections of one image in torchvision's dict, best first, boxes clipped to the image.

    boxes: float32 [M, 4] xyxy px, for all categories, or [M, K, 4], one for each. scores: float32 [M, K] in [0, 1],
    without background: column 0 is label 1.
    """
    candidates = (scores > SCORE_THRESHOLD).nonzero()  # [C, 2]: box, category
    values = scores[candidates[:, 0], candidates[:, 1]]
    values, order = values.topk(min(MAX_CANDIDATES, len(values)))
    of_box, category = candidates[order].unbind(1)
    chosen = boxes[of_box] if boxes.dim() == 2 else boxes[of_box, category]
    chosen = clip_boxes_to_image(chosen, (height, width))
    visible = ((chosen[:, 2:] - chosen[:, :2]) > SMALLEST_SIDE_PX).all(1).nonzero().flatten()
    kept = visible[batched_nms(chosen[visible], values[visible], category[visible], IOU_THRESHOLD)[:MAX_DETECTIONS]]
    return {"boxes": chosen[kept], "labels": category[kept] + 1, "scores": values[kept]}


def check_targets(images: Sequence[Tensor], targets: Sequence[dict[str, Tensor]] | None) -> Sequence[dict[str, Tensor]]:
    """`targets`, which training needs: one for each image. Raises ValueError."""
    if targets is None or len(targets) != len(images):
        msg = "training needs a target for every image"
        raise ValueError(msg)
    for target in targets:
        boxes = target["boxes"]
        if boxes.dim() != 2 or boxes.shape[1] != 4 or len(boxes) != len(target["labels"]):
            msg = f"boxes must be [N, 4] with N labels, not {list(boxes.shape)} with {len(target['labels'])}"
            raise ValueError(msg)
        if not bool((boxes[:, 2:] > boxes[:, :2]).all()):
            msg = "every box must have a width and a height above 0"
            raise ValueError(msg)
    return targets
