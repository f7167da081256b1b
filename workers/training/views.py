"""Random crops, scales and colours of images, for the augmentation of detection and segmentation.

A view is one crop and one resize of the original pixels; torchvision's `transforms.v2` applies it to images, boxes and
masks. Every random number comes from the given generator.
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

MIN_ZOOM, MAX_ZOOM = 0.6, 1.6  # relative to the scale of the preset
COLOUR_JITTER = 0.3  # brightness, contrast and saturation change by a factor between 0.7 and 1.3

InputT = TypeVar("InputT", bound=Tensor)


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A crop of an image, in pixels of the image, and the size that the crop is resized to."""

    top: int
    left: int
    height: int
    width: int
    size: tuple[int, int]  # height and width after the resize


def whole_view(preset: ScalePreset, height: int, width: int) -> View:
    """The whole image at the scale of the preset."""
    return View(top=0, left=0, height=height, width=width, size=scaled_size(preset, height, width))


def random_view(preset: ScalePreset, height: int, width: int, generator: Generator) -> View:
    """A random crop at a larger scale, or the whole image at a smaller one.

    Source: scale jitter, Ghiasi et al. 2021, sec. 3.
    """
    whole = whole_view(preset, height, width)
    zoom = math.exp(uniform(math.log(MIN_ZOOM), math.log(MAX_ZOOM), generator))
    if zoom < 1:
        if not preset.keeps_aspect:
            return whole  # the size of the network's input is fixed
        return replace(whole, size=(max(1, round(whole.size[0] * zoom)), max(1, round(whole.size[1] * zoom))))
    part_height, part_width = max(1, round(height / zoom)), max(1, round(width / zoom))
    top = int(torch.randint(height - part_height + 1, (), generator=generator))
    left = int(torch.randint(width - part_width + 1, (), generator=generator))
    return View(top=top, left=left, height=part_height, width=part_width, size=whole.size)


def apply_view(tensor: InputT, view: View) -> InputT:
    """Applies `view` to an image, boxes or masks, given as a tv_tensor."""
    if tensor.numel() == 0 and not isinstance(tensor, tv_tensors.BoundingBoxes):
        shape = (*tensor.shape[:-2], *view.size)
        return type(tensor)(tensor.new_zeros(shape))
    resized: InputT = transforms.resized_crop(
        tensor, view.top, view.left, view.height, view.width, list(view.size), antialias=True
    )
    return resized


def jitter_colours(image: Tensor, generator: Generator) -> Tensor:
    """Changes brightness, contrast and saturation of `image`, uint8 [3, h, w], at random."""
    for adjust in (transforms.adjust_brightness, transforms.adjust_contrast, transforms.adjust_saturation):
        image = adjust(image, uniform(1 - COLOUR_JITTER, 1 + COLOUR_JITTER, generator))
    return image


def uniform(low: float, high: float, generator: Generator) -> float:
    """Draws one number between `low` and `high`."""
    return float(torch.empty(()).uniform_(low, high, generator=generator))
