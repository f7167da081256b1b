"""Keeps the boxes of torchvision's detectors in float32 under autocast.

Under autocast a head answers in bfloat16 or float16, and torchvision takes the dtype of its boxes and anchors from that
answer and from the feature maps. bfloat16 has 8 significant bits: a coordinate above 128 px becomes a whole number, and
above 1024 px a multiple of 8. With these hooks the layers still compute in low precision, but anchors, decoding,
clipping, matching, suppression and losses get float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN


def keep_boxes_in_float32(module: nn.Module) -> nn.Module:
    """Returns `module`, one of torchvision's detectors, after adding hooks. Without autocast they change nothing."""
    if isinstance(module, GeneralizedRCNN):
        regions = module.roi_heads
        heads = [module.rpn.head, regions.box_predictor, regions.mask_predictor, regions.keypoint_predictor]
        anchors = module.rpn.anchor_generator
    else:
        heads, anchors = [module.head], module.anchor_generator
    for head in heads:
        if head is not None:  # a network without masks or without keypoints
            head.register_forward_hook(_answer_in_float32)
    anchors.register_forward_pre_hook(_float32_maps)
    return module


def _answer_in_float32(_: nn.Module, __: Any, output: Any) -> Any:
    return _float32(output)


def _float32(output: Any) -> Any:
    """Converts every tensor in tuples, lists and dicts."""
    if isinstance(output, Tensor):
        return output.float()
    if isinstance(output, dict):
        return {name: _float32(value) for name, value in output.items()}
    return type(output)(_float32(value) for value in output)


def _float32_maps(_: nn.Module, arguments: tuple[Any, list[Tensor]]) -> tuple[Any, list[Tensor]]:
    """Replaces the maps by empty ones: the generator reads only their shape, dtype and device."""
    images, maps = arguments
    return images, [torch.empty(1, device=one.device).expand(one.shape) for one in maps]
