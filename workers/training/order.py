"""Which images go together and in which order: it depends on seed and epoch alone, so a resumed run goes on alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator

_SEED_STEP = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: seeds of neighbours lie far apart


def mixed_seed(*numbers: int) -> int:
    """One seed of several numbers."""
    seed = 0
    for number in numbers:
        seed = (seed ^ (number & 0xFFFFFFFF)) * _SEED_STEP % 2**64
        seed ^= seed >> 29
    return seed % 2**63


def image_generator(seed: int, epoch: int, index: int) -> Generator:
    """The random numbers of one image in one epoch, whoever decodes it."""
    return Generator().manual_seed(mixed_seed(seed, epoch, index))


def shuffled_batches(
    count: int, *, batch_size: int, seed: int, epoch: int, groups: Sequence[int] | None = None
) -> list[list[int]]:
    """Indices of `count` images in shuffled batches of an epoch.

    groups: a number an image; images with the same number come together, so that upright and lying pictures do not pad
    one another (Girshick 2015, sec. 2.3, in torchvision's form). At most one batch a group is mixed.
    A last batch of a single image is left out: batch normalization has no statistics of one (Ioffe & Szegedy 2015).
    """
    generator = Generator().manual_seed(mixed_seed(seed, epoch, -1))
    order: list[int] = torch.randperm(count, generator=generator).tolist()
    if groups is not None:
        order.sort(key=lambda index: groups[index])
    batches = [order[start : start + batch_size] for start in range(0, count, batch_size)]
    if batch_size > 1 and len(batches) > 1 and len(batches[-1]) == 1:
        batches.pop()
    if groups is None:
        return batches
    return [batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()]


def alike_in_order(sizes: Sequence[tuple[int, int]], batch_size: int) -> list[list[int]]:
    """Indices of images of those sizes in batches, each once; only images of one size share one, so none is padded."""
    of_size: dict[tuple[int, int], list[int]] = {}
    for index, size in enumerate(sizes):
        of_size.setdefault(size, []).append(index)
    return [
        indices[start : start + batch_size]
        for indices in of_size.values()
        for start in range(0, len(indices), batch_size)
    ]


def in_order(count: int, batch_size: int) -> list[list[int]]:
    """Indices of `count` images in batches, each once."""
    return [list(range(start, min(start + batch_size, count))) for start in range(0, count, batch_size)]
