"""Preprocessing by a preset, the same for validation in training and for serving.

The steps and numbers are those of torchvision's `ImageClassification` preset, on uint8 until the network needs floats.
torch resizes uint8 with Pillow's fixed-point arithmetic. This is faster than floats and closer to how the weights were
trained and measured: 99 of 100 values are identical.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from models.manifest import AnyPreset, Preset, ScalePreset

_MAX_ASPECT = 8  # longer images are cropped to the middle first: resizing 1 x 100,000 px would take gigabytes


def apply_preset(preset: Preset, image: Tensor) -> Tensor:
    """The network's input for `image`, uint8 [3, H, W]: float32 [C, crop, crop]."""
    return normalise(preset, resize_and_crop(preset, image).unsqueeze(0))[0]


def resize_and_crop(preset: Preset, image: Tensor) -> Tensor:
    """The middle of `image`, uint8 [3, H, W], at the network's size and channels: uint8 [C, crop, crop]."""
    pixels = _middle(convert_channels(image, preset.channels), preset)
    if pixels.device.type == "cpu" or preset.interpolation != "bicubic":
        pixels = transforms.resize(pixels, [preset.resize_px], InterpolationMode(preset.interpolation), antialias=True)
    else:
        pixels = resize_by_turns(pixels, preset.resize_px)
    cropped: Tensor = transforms.center_crop(pixels, [preset.crop_px, preset.crop_px])
    return cropped


def resize_by_turns(image: Tensor, shorter_px: int) -> Tensor:
    """`image`, uint8 [C, H, W], with bicubic interpolation: uint8 [C, h, w], the shorter side as asked for.

    Resizes one direction after the other. A GPU resizes bytes as floats, and at edges bicubic values exceed the range
    of bytes. The CPU clips them after each direction; clipping only once would change pixels by up to 20 levels.
    """
    height, width = image.shape[-2:]
    new_width = shorter_px if width <= height else int(shorter_px * width / height)  # as torchvision rounds
    across = transforms.resize(image, [height, new_width], InterpolationMode.BICUBIC, antialias=True)
    new_height = shorter_px if height <= width else int(shorter_px * height / width)
    resized: Tensor = transforms.resize(across, [new_height, new_width], InterpolationMode.BICUBIC, antialias=True)
    return resized


def normalise(preset: AnyPreset, images: Tensor) -> Tensor:
    """uint8 [B, C, h, w] as float32 [B, C, h, w], normalised by the preset's mean and deviation, on the same device."""
    scaled = images.to(torch.float32) / 255
    return scaled.sub_(_a_channel(scaled, preset.mean)).div_(_a_channel(scaled, preset.std))


def levels_of(preset: AnyPreset, images: Tensor) -> Tensor:
    """The inverse of `normalise`: float32 [B, C, h, w] back to levels from 0 to 255, float32 [B, C, h, w]."""
    return (images * _a_channel(images, preset.std) + _a_channel(images, preset.mean)) * 255


def frame_view(preset: Preset, view: Tensor) -> Tensor:
    """An image, uint8 [3, resize, resize], that `resize_and_crop` turns into `view`, uint8 [C, crop, crop].

    Raises ValueError if the crop is larger than the resized image.
    """
    margin = preset.resize_px - preset.crop_px
    if margin < 0:
        msg = f"a crop of {preset.crop_px} px is not part of an image of {preset.resize_px} px"
        raise ValueError(msg)
    before = round(margin / 2)  # as center_crop rounds
    around = [before, margin - before, before, margin - before]
    return functional.pad(view.expand(3, -1, -1), around)


def scaled_size(preset: ScalePreset, height: int, width: int) -> tuple[int, int]:
    """Height and width of an image of that size after scaling, px, each at least 1."""
    if not preset.keeps_aspect:
        return preset.longer_px, preset.longer_px
    factor = min(preset.shorter_px / min(height, width), preset.longer_px / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def scale(preset: ScalePreset, image: Tensor) -> Tensor:
    """The whole `image`, uint8 [3, H, W], at the network's scale: uint8 [3, h, w]."""
    size = scaled_size(preset, image.shape[-2], image.shape[-1])
    scaled: Tensor = transforms.resize(image, list(size), InterpolationMode.BILINEAR, antialias=True)
    return scaled


def convert_channels(image: Tensor, channels: int) -> Tensor:
    """RGB `image`, uint8 [..., 3, H, W], unchanged or as luma, uint8 [..., 1, H, W].

    Luma is ITU-R 601-2 in Pillow's arithmetic, so a grey image keeps its values; torchvision's would lose one level.
    """
    if channels == 3:
        return image
    red, green, blue = image.to(torch.int32).unbind(-3)
    luma = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
    return luma.to(torch.uint8).unsqueeze(-3)


def _a_channel(images: Tensor, values: Sequence[float]) -> Tensor:
    """`values` as [C, 1, 1], created on the device of `images`: a CUDA graph cannot record a copy from the CPU."""
    return torch.stack([images.new_full((1, 1), value) for value in values])


PresetT = TypeVar("PresetT", Preset, ScalePreset, AnyPreset)


def preset_with_size(preset: PresetT, size_px: int) -> PresetT:
    """`preset` for another input size: the same share of the image, the same limits of aspect."""
    if isinstance(preset, ScalePreset):
        longer_px = round(preset.longer_px * size_px / preset.shorter_px)
        return ScalePreset.model_validate({**preset.model_dump(), "shorter_px": size_px, "longer_px": longer_px})
    resize_px = round(preset.resize_px * size_px / preset.crop_px)
    return Preset.model_validate({**preset.model_dump(), "resize_px": resize_px, "crop_px": size_px})


def _middle(image: Tensor, preset: Preset) -> Tensor:
    """`image`, or the middle of a very long image: the only part that the crop can contain."""
    height, width = image.shape[-2:]
    longest = max(1, min(height, width)) * max(_MAX_ASPECT, 2 * preset.crop_px // preset.resize_px)
    middle: Tensor = transforms.center_crop(image, [min(height, longest), min(width, longest)])
    return middle
