"""Batch normalization that no longer learns is a scale and a shift: the convolution before it can do both."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops import FrozenBatchNorm2d

ModuleT = TypeVar("ModuleT", bound=nn.Module)
_RESNETS = (ResNet, IntermediateLayerGetter, BasicBlock, Bottleneck)


def folded(module: ModuleT) -> ModuleT:
    """A copy of `module` in evaluation mode whose convolutions do what the normalization after them did.

    The pairs are those of a `Sequential`, and `conv1` and `bn1`, … of torchvision's residual networks: in other modules
    what stands next to each other need not follow each other.
    """
    copied = copy.deepcopy(module).eval()
    for part in list(copied.modules()):
        children = list(part.named_children())
        if isinstance(part, nn.Sequential):
            pairs = list(pairwise(children))
        elif isinstance(part, _RESNETS):
            named = dict(children)
            pairs = [((f"conv{n}", named[f"conv{n}"]), (f"bn{n}", named[f"bn{n}"])) for n in "123" if f"bn{n}" in named]
        else:
            continue
        for (before, convolution), (after, norm) in pairs:
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d | FrozenBatchNorm2d):
                setattr(part, before, _fold(convolution, norm))
                setattr(part, after, nn.Identity())
    return copied


def _fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d | FrozenBatchNorm2d) -> nn.Conv2d:
    """A convolution that computes what both do in turn."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    fused = copy.deepcopy(convolution)
    with torch.no_grad():
        fused.weight, fused.bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
        )
    return fused
