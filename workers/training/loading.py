"""Batches from files, whatever the task: whole batches at a time, decoded on threads or in data workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from models.errors import ImageError
from models.images.decode import decode_image
from workers.configs.fine_tune import Augmentation
from workers.datasets.dataset import DatasetImage
from workers.training.failures import UnusableImage
from workers.training.order import shuffled_batches

SampleT = TypeVar("SampleT")
BatchT = TypeVar("BatchT")


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochOptions:
    """How the training batches of an epoch, or of the rest of one, are made: the same for every task."""

    batch_size: int
    augmentation: Augmentation = "none"
    seed: int = 0
    epoch: int = 0
    first_step: int = 0  # batches before it were seen already
    data_workers: int = 0
    is_pinned: bool = False

    def shuffled(self, count: int, *, groups: Sequence[int] | None = None) -> list[list[int]]:
        """Indices of `count` images in batches, from `first_step` on. groups: see `shuffled_batches`."""
        batches = shuffled_batches(count, batch_size=self.batch_size, seed=self.seed, epoch=self.epoch, groups=groups)
        return batches[self.first_step :]


class ImageBatches(Dataset[BatchT], Generic[SampleT, BatchT]):
    """Batches of one split: `sample` makes what is learned of an image, `collate` a batch of those."""

    def __init__(self, sample: Callable[[int], SampleT], collate: Callable[[list[int], list[SampleT]], BatchT]) -> None:
        self._sample = sample
        self._collate = collate
        self._pool: ThreadPoolExecutor | None = None  # made where the images are fetched

    def __getitems__(self, indices: list[int]) -> BatchT:
        if self._pool is None:
            # a data worker process is one of many already
            self._pool = ThreadPoolExecutor(1 if get_worker_info() else os.cpu_count() or 1)
        return self._collate(indices, list(self._pool.map(self._sample, indices)))


def load_batches(
    dataset: ImageBatches[SampleT, BatchT], batches: Sequence[list[int]], workers: int, *, is_pinned: bool = False
) -> DataLoader[BatchT]:
    """`dataset` in those batches. workers: processes that decode; 0 decodes here, threaded."""
    # `__getitems__` makes whole batches, so there is nothing to collate
    return DataLoader(
        dataset,
        batch_sampler=list(batches),
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=is_pinned,
        generator=torch.Generator(),  # a loader draws from it; from the one networks draw from, resuming would differ
    )


def read_image(root: Path, image: DatasetImage) -> Tensor:
    """uint8 [3, H, W] by the one decoder. Raises UnusableImage."""
    try:
        return decode_image((root / image.path).read_bytes())
    except (ImageError, OSError) as error:
        raise UnusableImage(image.path, error) from error


def default_data_workers(device: torch.device) -> int:
    """Beside a GPU all cores but one decode; beside a CPU none: training needs them all, and decoding is threaded."""
    return min(8, (os.cpu_count() or 1) - 1) if device.type == "cuda" else 0


def _as_it_is(batch: Any) -> Any:
    return batch
