"""Sizes of a backbone's feature maps and the anchors on them, by the size of the image: worked out once a size."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

SIZES_KEPT = 8  # of an image: the anchors of 800 x 1333 px take 5 MB
MAP_SIZES_KEPT = 1024  # a few numbers each, and a tenth of a second to work out


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """The anchors of an image."""

    anchors: Tensor  # float32 [A, 4] xyxy px, level after level
    counts: tuple[int, ...]  # anchors of each level
    levels: Tensor  # int64 [A]: the level of each


class Grids:
    """Grids of a network by the size of its input. The last few are kept, and the sizes of the maps of many more."""

    def __init__(self, backbone: nn.Module, generator: nn.Module) -> None:
        """generator: torchvision's, of anchors or default boxes."""
        self._backbone, self._generator = backbone, generator
        self._map_sizes = lru_cache(maxsize=MAP_SIZES_KEPT)(partial(map_sizes, backbone))
        self.at = lru_cache(maxsize=SIZES_KEPT)(self._make)

    def __deepcopy__(self, memo: dict[int, Any]) -> Grids:
        """Of the copied backbone: a copied cache would work for the original, and keep it."""
        return Grids(copy.deepcopy(self._backbone, memo), copy.deepcopy(self._generator, memo))

    def _make(self, height: int, width: int, device: torch.device) -> Grid:
        """The grid of an input of that size, px."""
        sizes = self._map_sizes(height, width)
        none = torch.empty(1, device=device)
        maps = [none.expand(1, 1, *size) for size in sizes]  # only their shapes are looked at
        generator = copy.copy(self._generator)  # it notes down a device, and threads may ask at once
        (anchors,) = generator(ImageList(none.expand(1, 3, height, width), [(height, width)]), maps)
        places = [
            rows * columns * each for (rows, columns), each in zip(sizes, _anchors_a_place(generator), strict=True)
        ]
        counts = torch.tensor(places, device=device)
        levels = torch.arange(len(places), device=device).repeat_interleave(counts)
        return Grid(anchors=anchors, counts=tuple(places), levels=levels)


def map_sizes(backbone: nn.Module, height: int, width: int) -> tuple[tuple[int, int], ...]:
    """Height and width of every map that the backbone makes of an input of that size; nothing is computed."""
    tensors = [*backbone.parameters(), *backbone.buffers()]
    empty = copy.deepcopy(backbone, {id(one): one.detach().to("meta") for one in tensors})
    with torch.no_grad():
        maps = empty(torch.empty(1, 3, height, width, device="meta", dtype=tensors[0].dtype))
    return tuple((one.shape[-2], one.shape[-1]) for one in maps.values())


def _anchors_a_place(generator: nn.Module) -> Sequence[int]:
    counts: Sequence[int] = generator.num_anchors_per_location()  # type: ignore[operator]
    return counts
