"""The views that go into a network: their size, and generated ones for models without a dataset."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.manifest import AnyPreset, Preset

BATCH_IMAGES = 32  # larger batches take more memory and are not faster
BATCH_PIXELS = 2**22  # of all views of a batch: 4 of 800 x 1333 px, whose feature maps take a gigabyte
LARGEST_BATCH = 64  # the largest batch of a compiled network
SMALLEST_PX = 32  # the least side of views whose size varies

_OPPOSED_COLOURS = ((1.0, 0.5, 0.3), (1.0, 0.1, -0.6), (1.0, -0.6, 0.3))  # rows: what red, green and blue are made of


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewSize:
    """Channels, height and width of a network's views in px; None where they vary."""

    channels: int
    height: int | None
    width: int | None

    @staticmethod
    def of(preset: AnyPreset) -> ViewSize:
        """Returns the size of the views that the preset makes."""
        if isinstance(preset, Preset):
            return ViewSize(channels=preset.channels, height=preset.crop_px, width=preset.crop_px)
        side = None if preset.keeps_aspect else preset.longer_px
        return ViewSize(channels=preset.channels, height=side, width=side)

    def takes(self, batch: Tensor) -> bool:
        """Returns True for a batch, uint8 [B, C, h, w], of this size with at most LARGEST_BATCH views."""
        known = (self.channels, self.height, self.width)
        return (
            batch.dtype == torch.uint8
            and batch.ndim == 4
            and 1 <= batch.shape[0] <= LARGEST_BATCH
            and all(wanted in (None, side) for wanted, side in zip(known, batch.shape[1:], strict=True))
        )


def largest_batch(shape: torch.Size) -> int:
    """Returns how many views of that shape, [C, h, w], may share a batch."""
    return max(1, min(BATCH_IMAGES, BATCH_PIXELS // (shape[-1] * shape[-2])))


def natural_views(preset: AnyPreset, count: int, *, seed: int = 0) -> list[Tensor]:
    """Generates views with the statistics of photos, uint8 [C, h, w].

    Amplitude falls with spatial frequency as 1/f, brightness varies more than colour (Field 1987; Ruderman et al.
    1998), and contrast differs from image to image. Where a network's views vary in size, so do these.
    """
    random = torch.Generator().manual_seed(seed)
    size = ViewSize.of(preset)
    shorter = preset.image_size_px
    sides = [(shorter, shorter), (shorter, shorter * 5 // 4), (shorter * 5 // 4, shorter)]
    views = []
    for number in range(count):
        height, width = sides[number % 3] if size.height is None else (size.height, size.width or size.height)
        views.append(_natural(height, width, size.channels, random))
    return views


def _natural(height: int, width: int, channels: int, random: torch.Generator) -> Tensor:
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = torch.inf  # the mean is set below
    phases = torch.rand(3, *frequency.shape, generator=random) * (2 * torch.pi)
    planes = torch.fft.irfft2(torch.polar((1 / frequency).expand_as(phases), phases), s=(height, width))
    planes = planes / planes.flatten(1).std(dim=1)[:, None, None].clamp_min(1e-6)  # [3, h, w], of deviation 1
    colours = torch.einsum("ck,khw->chw", torch.tensor(_OPPOSED_COLOURS), planes)[:channels]
    contrast, brightness = torch.rand(2, generator=random).tolist()
    pixels = 90 + 80 * brightness + colours * (20 + 40 * contrast)
    view: Tensor = pixels.round().clamp(0, 255).to(torch.uint8)
    return view
