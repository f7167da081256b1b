"""Sizes of a backbone's feature maps and the anchors on them, computed once per size of the image."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

SIZES_KEPT = 8  # the anchors of 800 x 1333 px take 5 MB
MAP_SIZES_KEPT = 1024  # an entry is a few numbers and takes a tenth of a second to compute


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """The anchors of an image."""

    anchors: Tensor  # float32 [A, 4] xyxy px, level after level
    counts: tuple[int, ...]  # anchors of each level
    levels: Tensor  # int64 [A]: the level of each


class Grids:
    """Caches the grids of a network by the size of its input: the last few grids, and many more sizes of maps."""

    def __init__(self, backbone: nn.Module, generator: nn.Module) -> None:
        """generator: torchvision's generator of anchors or default boxes."""
        self._backbone, self._generator = backbone, generator
        self._map_sizes = lru_cache(maxsize=MAP_SIZES_KEPT)(partial(map_sizes, backbone))
        self.at = lru_cache(maxsize=SIZES_KEPT)(self._make)

    def __deepcopy__(self, memo: dict[int, Any]) -> Grids:
        """Makes new grids for the copied backbone. A copied cache would refer to the original one."""
        return Grids(copy.deepcopy(self._backbone, memo), copy.deepcopy(self._generator, memo))

    def _make(self, height: int, width: int, device: torch.device) -> Grid:
        """The grid of an input of that size, px."""
        sizes = self._map_sizes(height, width)
        none = torch.empty(1, device=device)
        maps = [none.expand(1, 1, *size) for size in sizes]  # the generator reads only their shapes
        generator = copy.copy(self._generator)  # a generator stores a device, and several threads may call it at once
        (anchors,) = generator(ImageList(none.expand(1, 3, height, width), [(height, width)]), maps)
        places = [
            rows * columns * each for (rows, columns), each in zip(sizes, _anchors_a_place(generator), strict=True)
        ]
        counts = torch.tensor(places, device=device)
        levels = torch.arange(len(places), device=device).repeat_interleave(counts)
        return Grid(anchors=anchors, counts=tuple(places), levels=levels)


def map_sizes(backbone: nn.Module, height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Returns height and width of every map of the backbone for an input of that size, without computing the maps."""
    tensors = [*backbone.parameters(), *backbone.buffers()]
    empty = copy.deepcopy(backbone, {id(one): one.detach().to("meta") for one in tensors})
    with torch.no_grad():
        maps = empty(torch.empty(1, 3, height, width, device="meta", dtype=tensors[0].dtype))
    return tuple((one.shape[-2], one.shape[-1]) for one in maps.values())


def _anchors_a_place(generator: nn.Module) -> Sequence[int]:
    counts: Sequence[int] = generator.num_anchors_per_location()  # type: ignore[operator]
    return counts
