"""Chooses which images form a batch, and in which order.

The choice depends only on the seed and the epoch, so a resumed run gets the same batches as one without interruption.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator

from workers.configs.fine_tune import steps_per_epoch

_MULTIPLIER = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio: neighbouring seeds become very different


def mix_seed(*numbers: int) -> int:
    """Combines several numbers into one seed."""
    seed = 0
    for number in numbers:
        seed = (seed ^ (number & 0xFFFFFFFF)) * _MULTIPLIER % 2**64
        seed ^= seed >> 29
    return seed % 2**63


def image_generator(seed: int, epoch: int, index: int) -> Generator:
    """Returns the random numbers for one image in one epoch; they are the same in every thread and process."""
    return Generator().manual_seed(mix_seed(seed, epoch, index))


def shuffled_batches(
    count: int, *, batch_size: int, seed: int, epoch: int, groups: Sequence[int] | None = None
) -> list[list[int]]:
    """Returns the indices of `count` images in the shuffled batches of one epoch, without a last batch of one image.

    groups: the group of each image. A batch takes images of one group if possible, so that portrait and landscape
    images need no padding (Girshick 2015, sec. 2.3, as in torchvision). At most one batch per group is mixed.
    """
    generator = Generator().manual_seed(mix_seed(seed, epoch, -1))
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    if groups is not None:
        order.sort(key=lambda index: groups[index])
    batches = [order[start : start + batch_size] for start in range(0, count, batch_size)]
    batches = batches[: steps_per_epoch(count, batch_size=batch_size)]
    if groups is None:
        return batches
    return [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]


def batches_of_equal_size(sizes: Sequence[tuple[int, int]], batch_size: int) -> list[list[int]]:
    """Returns every index of `sizes` once, in batches of images of equal size, which need no padding."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for index, size in enumerate(sizes):
        by_size.setdefault(size, []).append(index)
    return [
        indices[start : start + batch_size]
        for indices in by_size.values()
        for start in range(0, len(indices), batch_size)
    ]


def sequential_batches(count: int, batch_size: int) -> list[list[int]]:
    """Returns the indices from 0 to `count` - 1 in order, in batches."""
    return [list(range(start, min(start + batch_size, count))) for start in range(0, count, batch_size)]
