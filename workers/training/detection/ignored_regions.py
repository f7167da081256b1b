"""Removes regions that a detector must not learn from: crowds, and objects that are marked as difficult.

Their objects are no targets, so their pixels would teach that they are background. Every network computes its losses in
its own way, so the pixels are replaced and not the losses: a flat region teaches nothing about objects.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from models.masks.coco_masks import decode_mask
from workers.datasets.dataset import DatasetImage, DatasetObject


def is_ignored(target: DatasetObject) -> bool:
    """Returns True if training ignores the region of the object."""
    return target.is_crowd or target.is_difficult


def blank_ignored(pixels: Tensor, image: DatasetImage) -> Tensor:
    """Returns `pixels`, uint8 [3, h, w], with the mean colour of the image in the regions that training ignores.

    A region is the mask of the object, or its box if it has none. Pixels in the box of another object are kept.
    """
    ignored = [target for target in image.objects if is_ignored(target)]
    if not ignored:
        return pixels
    region = torch.zeros(pixels.shape[1:], dtype=torch.bool)
    for target in ignored:
        if target.mask is None:
            region[_inside(target)] = True
        else:
            region |= torch.from_numpy(decode_mask(target.mask, image.height, image.width)) > 0
    for target in image.objects:
        if not is_ignored(target):
            region[_inside(target)] = False
    mean = pixels.float().mean(dim=(1, 2)).round().to(torch.uint8)  # [3]
    return torch.where(region, mean[:, None, None], pixels)


def _inside(target: DatasetObject) -> tuple[slice, slice]:
    """The rows and columns that the box touches."""
    x_min, y_min, x_max, y_max = target.box
    return slice(math.floor(y_min), math.ceil(y_max)), slice(math.floor(x_min), math.ceil(x_max))
