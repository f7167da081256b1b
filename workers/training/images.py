"""From files to batches, in an order that depends on seed and epoch alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from models.errors import ImageError
from models.images import decode_image
from models.manifest import Preset
from models.presets import resize_and_crop
from workers.datasets.dataset import DatasetImage
from workers.training.augment import augment
from workers.training.failures import UnusableImage

Batch = tuple[Tensor, Tensor]  # uint8 [B, C, crop, crop], int64 [B]
_SEED_STEP = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: seeds of neighbours lie far apart


class ClassificationImages(Dataset[Batch]):
    """One split in one epoch. Fetches whole batches, decoding on as many threads as there are cores."""

    def __init__(
        self, images: Sequence[DatasetImage], root: Path, preset: Preset, *, augmentation: str, seed: int, epoch: int
    ) -> None:
        self._images = images
        self._root = root
        self._preset = preset
        self._is_augmented = augmentation != "none"
        self._seed = seed
        self._epoch = epoch
        self._pool: ThreadPoolExecutor | None = None  # made where the images are fetched

    def __getitems__(self, indices: list[int]) -> Batch:
        if self._pool is None:
            # a data worker process is one of many already
            self._pool = ThreadPoolExecutor(1 if get_worker_info() else os.cpu_count() or 1)
        pixels = list(self._pool.map(self._pixels, indices))
        categories = [self._images[index].category for index in indices]
        return torch.stack(pixels), torch.tensor(categories)

    def _pixels(self, index: int) -> Tensor:
        """uint8 [C, crop, crop]"""
        path = self._root / self._images[index].path
        try:
            image = decode_image(path.read_bytes())  # the one decoder
        except (ImageError, OSError) as error:
            raise UnusableImage(self._images[index].path, error) from error
        if not self._is_augmented:
            return resize_and_crop(self._preset, image)
        generator = Generator().manual_seed(_mixed(self._seed, self._epoch, index))
        return augment(self._preset, image, generator)


def training_batches(
    images: Sequence[DatasetImage],
    root: Path,
    preset: Preset,
    *,
    batch_size: int,
    augmentation: str,
    seed: int,
    epoch: int,
    first_step: int = 0,
    data_workers: int = 0,
    is_pinned: bool = False,
) -> DataLoader[Batch]:
    """Shuffled batches of an epoch, from its step `first_step` on.

    A last batch of a single image is left out: batch normalization has no statistics of one (Ioffe & Szegedy 2015).
    """
    order = torch.randperm(len(images), generator=Generator().manual_seed(_mixed(seed, epoch, -1))).tolist()
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    if batch_size > 1 and len(batches) > 1 and len(batches[-1]) == 1:
        batches.pop()
    dataset = ClassificationImages(images, root, preset, augmentation=augmentation, seed=seed, epoch=epoch)
    return _loader(dataset, batches[first_step:], data_workers, is_pinned=is_pinned)


def evaluation_batches(
    images: Sequence[DatasetImage], root: Path, preset: Preset, *, batch_size: int, data_workers: int = 0
) -> DataLoader[Batch]:
    """Every image once, in order, as serving sees it."""
    batches = [list(range(start, min(start + batch_size, len(images)))) for start in range(0, len(images), batch_size)]
    dataset = ClassificationImages(images, root, preset, augmentation="none", seed=0, epoch=0)
    return _loader(dataset, batches, data_workers, is_pinned=False)


def steps_an_epoch(images: int, batch_size: int) -> int:
    """How many batches `training_batches` makes of so many images."""
    full, rest = divmod(images, batch_size)
    return full if rest == 0 or (rest == 1 and full) else full + 1


def default_data_workers(device: torch.device) -> int:
    """Beside a GPU all cores but one decode; beside a CPU none: training needs them all, and decoding is threaded."""
    return min(8, (os.cpu_count() or 1) - 1) if device.type == "cuda" else 0


def _loader(dataset: Dataset[Batch], batches: list[list[int]], workers: int, *, is_pinned: bool) -> DataLoader[Batch]:
    # `__getitems__` makes whole batches, so there is nothing to collate
    return DataLoader(dataset, batch_sampler=batches, num_workers=workers, collate_fn=_as_it_is, pin_memory=is_pinned)


def _as_it_is(batch: Any) -> Any:
    return batch


def _mixed(*numbers: int) -> int:
    """One seed of several numbers."""
    seed = 0
    for number in numbers:
        seed = (seed ^ (number & 0xFFFFFFFF)) * _SEED_STEP % 2**64
        seed ^= seed >> 29
    return seed % 2**63
