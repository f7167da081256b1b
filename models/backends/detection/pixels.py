"""The preprocessing of detectors: torchvision's `GeneralizedRCNNTransform` for a whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.backends.part import Part
from models.backends.views import LARGEST_BATCH


@dataclass(frozen=True, kw_only=True, slots=True)
class Pixels:
    """Turns a batch into a network's input."""

    mean: Sequence[float]  # per channel, of values in [0, 1]
    std: Sequence[float]
    multiple_px: int  # height and width are padded to a multiple of this, with zeros to the right and below

    def prepare(self, batch: Tensor) -> Tensor:
        """uint8 [B, 3, h, w] as float32 [B, 3, H, W], channels last, with the arithmetic of torchvision."""
        scaled = batch.to(torch.float32, memory_format=torch.channels_last) / 255
        mean, std = (scaled.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        height, width = self.padded(*batch.shape[-2:])
        missing = (0, width - batch.shape[-1], 0, height - batch.shape[-2])
        normalised = (scaled - mean) / std
        if any(missing):
            normalised = functional.pad(normalised, missing)
        return normalised.contiguous(memory_format=torch.channels_last)

    def part(self, network: nn.Module) -> Part:
        """Makes a part of a network that takes the result of `prepare` in float32, of any height and width."""
        example = torch.zeros(2, 3, 7 * self.multiple_px, 9 * self.multiple_px)
        return Part(name="network", module=network, example=example, most_rows=LARGEST_BATCH, varies=(2, 3))

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the network's input, px."""
        rows, columns = (-(-side // self.multiple_px) * self.multiple_px for side in (height, width))
        return rows, columns
