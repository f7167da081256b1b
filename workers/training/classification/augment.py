"""Random changes to training images. Every random number comes from the given generator.

So the augmentation of an image depends only on the seed and the epoch, and not on the thread, the process or the order.
A resumed run continues exactly as if nothing had interrupted it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from models.images.presets import convert_channels
from models.manifest import Preset

MIN_AREA = 0.25  # fraction of the image; the 0.08 of torchvision often misses the object, which harms small datasets
MIN_ASPECT, MAX_ASPECT = 3 / 4, 4 / 3
CROP_TRIES = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Crop:
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def augment(preset: Preset, image: Tensor, generator: Generator) -> Tensor:
    """Returns a random crop of `image`, uint8 [3, H, W], mirrored half the time: uint8 [C, crop, crop]."""
    pixels = convert_channels(image, preset.channels)
    crop = random_crop(pixels.shape[-2], pixels.shape[-1], generator)
    size = [preset.crop_px, preset.crop_px]
    interpolation = InterpolationMode(preset.interpolation)
    pixels = transforms.resized_crop(
        pixels, crop.top, crop.left, crop.height, crop.width, size, interpolation, antialias=True
    )
    mirrored: Tensor = pixels.flip(-1)
    return mirrored if _uniform(0, 1, generator) < 0.5 else pixels


def random_crop(height: int, width: int, generator: Generator) -> Crop:
    """Returns a crop of random area and aspect ratio inside height x width; the centre if ten tries do not fit.

    Source: Szegedy et al. 2015, "Going Deeper with Convolutions", sec. 6, as in torchvision.
    """
    for _ in range(CROP_TRIES):
        area = height * width * _uniform(MIN_AREA, 1, generator)
        aspect = math.exp(_uniform(math.log(MIN_ASPECT), math.log(MAX_ASPECT), generator))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(torch.randint(height - crop_height + 1, (), generator=generator))
            left = int(torch.randint(width - crop_width + 1, (), generator=generator))
            return Crop(top=top, left=left, height=crop_height, width=crop_width)
    crop_width = min(width, max(1, round(height * MAX_ASPECT)))
    crop_height = min(height, max(1, round(width / MIN_ASPECT)))
    return Crop(top=(height - crop_height) // 2, left=(width - crop_width) // 2, height=crop_height, width=crop_width)


def _uniform(low: float, high: float, generator: Generator) -> float:
    return float(torch.empty(()).uniform_(low, high, generator=generator))
