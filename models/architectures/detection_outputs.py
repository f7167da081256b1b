"""What detectors give, in torchvision's dicts, and which of it is kept: the same in evaluation and in serving.

A detector's output for an image: `boxes` float32 [N, 4] xyxy in pixels of the image it was given, `labels` int64 [N]
from 1, `scores` float32 [N] in [0, 1]; some have `masks` float32 [N, 1, h, w] in [0, 1] and `keypoints` [N, P, 3].
Networks are built to suppress little (boxes that overlap by more than 0.7); what is asked for decides here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor
from torchvision.ops import batched_nms

SCORE_THRESHOLD = 0.5  # for people; evaluation takes all
IOU_THRESHOLD = 0.5
MAX_DETECTIONS = 100


def keep_detections(
    output: Mapping[str, Tensor],
    *,
    score_threshold: float = 0.0,
    iou_threshold: float = IOU_THRESHOLD,
    max_detections: int = MAX_DETECTIONS,
    labels: Collection[int] = (),
) -> dict[str, Tensor]:
    """The detections of one image that are asked for, best first; every tensor of `output` is cut alike.

    iou_threshold: of two boxes of a category that overlap by more the better one stays (Felzenszwalb et al. 2010).
    labels: only these; none: all.
    """
    scores, of_image = output["scores"], output["labels"]
    wanted = scores >= score_threshold
    if labels:
        wanted &= torch.isin(of_image, of_image.new_tensor(sorted(labels)))
    candidates = wanted.nonzero().flatten()
    kept = batched_nms(output["boxes"][candidates], scores[candidates], of_image[candidates], iou_threshold)
    chosen = candidates[kept[:max_detections]]
    return {name: tensor[chosen] for name, tensor in output.items()}
