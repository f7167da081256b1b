"""RoIAlign (He et al. 2017) as sums of rows: every cell of a region is a weighted sum of the map's values around it.

torchvision's kernel for CPUs goes region by region and channel by channel on one core. Here the channels of a position
are contiguous, and `embedding_bag` adds them on all cores. The positions and weights of samples equal torchvision's.

R regions, n cells per side, s samples per cell and side, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops.poolers import MultiScaleRoIAlign, initLevelMapper


@dataclass(frozen=True, kw_only=True, slots=True)
class Pooling:
    """Pools regions from the maps of a feature pyramid."""

    cells: int  # per side
    samples: int  # per cell and side
    canonical_scale: int  # Lin et al. 2017, equation 1: it gives the map for a region's size
    canonical_level: int

    @staticmethod
    def of(pool: MultiScaleRoIAlign) -> Pooling:
        """Takes the settings from torchvision's `pool`."""
        return Pooling(
            cells=pool.output_size[0],
            samples=pool.sampling_ratio,
            canonical_scale=pool.canonical_scale,
            canonical_level=pool.canonical_level,
        )

    def pool(self, maps: Sequence[Tensor], regions: Tensor, images: Tensor, *, height: int) -> Tensor:
        """Pools the regions, each from the map for its size: float32 [R, n, n, C].

        maps: float32 [B, h, w, C], at powers of 2 of the input's `height`, px; regions: float32 [R, 4] xyxy px of the
        input; images: int64 [R].
        """
        strides = [height // one.shape[1] for one in maps]
        levels = torch.zeros_like(images)
        if len(maps) > 1:
            finest, coarsest = strides[0].bit_length() - 1, strides[-1].bit_length() - 1
            mapper = initLevelMapper(finest, coarsest, self.canonical_scale, self.canonical_level)
            levels = mapper([regions])
        pooled = regions.new_empty(len(regions), self.cells, self.cells, maps[0].shape[-1])
        for level, (one, stride) in enumerate(zip(maps, strides, strict=True)):
            chosen = (levels == level).nonzero().flatten()
            pooled[chosen] = self._pool_map(one, regions[chosen] / stride, images[chosen])
        return pooled

    def _pool_map(self, values: Tensor, regions: Tensor, images: Tensor) -> Tensor:
        """float32 [R, n, n, C]. regions: px of the map."""
        height, width = values.shape[1:3]
        columns, across = self._samples(regions[:, 0], regions[:, 2], width)  # [R, n, 2 s]
        rows, down = self._samples(regions[:, 1], regions[:, 3], height)
        rows = rows + (images * height)[:, None, None]
        places = rows[:, :, None, :, None] * width + columns[:, None, :, None, :]  # [R, n, n, 2 s, 2 s]
        weights = down[:, :, None, :, None] * across[:, None, :, None, :]
        of_a_cell = (2 * self.samples) ** 2
        summed = functional.embedding_bag(
            places.reshape(-1, of_a_cell),
            values.reshape(-1, values.shape[-1]),
            per_sample_weights=weights.reshape(-1, of_a_cell),
            mode="sum",
        )
        return summed.view(len(regions), self.cells, self.cells, values.shape[-1])

    def _samples(self, starts: Tensor, ends: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Returns the neighbours of each cell's samples among `length` values, int64 [R, n, 2 s], and their weights."""
        cell = (ends - starts).clamp(min=1.0) / self.cells  # [R]: no region is smaller than a value
        cells = torch.arange(self.cells, device=starts.device)
        within = (torch.arange(self.samples, device=starts.device) + 0.5) / self.samples
        offsets = (cells[:, None] + within).flatten()  # [n s], in cells
        at = starts[:, None] + offsets * cell[:, None]  # [R, n s]
        is_inside = (at >= -1) & (at <= length)
        at = at.clamp(min=0)
        low = at.floor().clamp(max=length - 1)
        high = (low + 1).clamp(max=length - 1)
        share = (at - low).where(low < length - 1, 0.0)
        weights = torch.stack((1 - share, share), dim=2) * (is_inside / self.samples)[..., None]  # [R, n s, 2]
        shape = (len(starts), self.cells, 2 * self.samples)
        return torch.stack((low, high), dim=2).long().view(shape), weights.view(shape)
