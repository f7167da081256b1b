"""Parts of pictures at other scales, and other colours: what augmentation of boxes and of label maps shares.

Every random number comes from the generator that is passed in. A view is one crop and one resize of the original
pixels, by torchvision's `transforms.v2` on tv_tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Generator, Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as transforms

from models.images.presets import scaled_size
from models.manifest import ScalePreset

MIN_ZOOM, MAX_ZOOM = 0.6, 1.6  # of the preset's scale
COLOUR = 0.3  # brightness, contrast and saturation are changed by at most so much

InputT = TypeVar("InputT", bound=Tensor)


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A part of a picture, px, and the size it is brought to."""

    top: int
    left: int
    height: int
    width: int
    size: tuple[int, int]  # height, width


def whole_view(preset: ScalePreset, height: int, width: int) -> View:
    """All of a picture at the preset's scale."""
    return View(top=0, left=0, height=height, width=width, size=scaled_size(preset, height, width))


def random_view(preset: ScalePreset, height: int, width: int, generator: Generator) -> View:
    """A part at a larger scale, or all at a smaller one. Source: scale jitter, Ghiasi et al. 2021, sec. 3."""
    whole = whole_view(preset, height, width)
    zoom = math.exp(uniform(math.log(MIN_ZOOM), math.log(MAX_ZOOM), generator))
    if zoom < 1:
        if not preset.keeps_aspect:
            return whole  # its size is fixed
        return replace(whole, size=(max(1, round(whole.size[0] * zoom)), max(1, round(whole.size[1] * zoom))))
    part_height, part_width = max(1, round(height / zoom)), max(1, round(width / zoom))
    top = int(torch.randint(height - part_height + 1, (), generator=generator))
    left = int(torch.randint(width - part_width + 1, (), generator=generator))
    return View(top=top, left=left, height=part_height, width=part_width, size=whole.size)


def through_view(tensor: InputT, view: View) -> InputT:
    """What `view` shows of an image, boxes or masks, as tv_tensors."""
    if tensor.numel() == 0 and not isinstance(tensor, tv_tensors.BoundingBoxes):
        shape = (*tensor.shape[:-2], *view.size)
        return type(tensor)(tensor.new_zeros(shape))
    through: InputT = transforms.resized_crop(
        tensor, view.top, view.left, view.height, view.width, list(view.size), antialias=True
    )
    return through


def recoloured(image: Tensor, generator: Generator) -> Tensor:
    """`image`, uint8 [3, h, w], a little brighter or darker, duller or livelier."""
    for change in (transforms.adjust_brightness, transforms.adjust_contrast, transforms.adjust_saturation):
        image = change(image, uniform(1 - COLOUR, 1 + COLOUR, generator))
    return image


def uniform(low: float, high: float, generator: Generator) -> float:
    """One number between `low` and `high`."""
    return float(torch.empty(()).uniform_(low, high, generator=generator))
