"""Loads batches from image files, for all tasks. Threads or data worker processes decode the images."""

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
    """Options for the training batches of one epoch, for all tasks."""

    batch_size: int
    augmentation: Augmentation = "none"
    seed: int = 0
    epoch: int = 0
    first_step: int = 0  # the batches before it are skipped: an earlier attempt has trained on them
    data_workers: int = 0  # processes; 0 decodes in this process
    is_pinned: bool = False  # True: batches are in page-locked memory, from which copies to a GPU are faster

    def shuffled(self, count: int, *, groups: Sequence[int] | None = None) -> list[list[int]]:
        """Returns the batches of indices of `count` images, from `first_step` on. groups: see `shuffled_batches`."""
        batches = shuffled_batches(count, batch_size=self.batch_size, seed=self.seed, epoch=self.epoch, groups=groups)
        return batches[self.first_step :]


class ImageBatches(Dataset[BatchT], Generic[SampleT, BatchT]):
    """A dataset of whole batches: `load_sample` reads one image with its target, `collate` forms a batch of samples."""

    def __init__(
        self, load_sample: Callable[[int], SampleT], collate: Callable[[list[int], list[SampleT]], BatchT]
    ) -> None:
        self._load_sample = load_sample
        self._collate = collate
        self._pool: ThreadPoolExecutor | None = None  # created in the process that loads the batches

    def __getitems__(self, indices: list[int]) -> BatchT:
        if self._pool is None:
            # A data worker gets one thread, because there is one such process per core already.
            self._pool = ThreadPoolExecutor(1 if get_worker_info() else os.cpu_count() or 1)
        return self._collate(indices, list(self._pool.map(self._load_sample, indices)))


def load_batches(
    dataset: ImageBatches[SampleT, BatchT], batches: Sequence[list[int]], workers: int, *, is_pinned: bool = False
) -> DataLoader[BatchT]:
    """Returns a loader of the given batches. workers: processes that decode; 0 decodes on threads of this process."""
    return DataLoader(
        dataset,
        batch_sampler=list(batches),
        num_workers=workers,
        collate_fn=_identity,  # `__getitems__` returns whole batches
        pin_memory=is_pinned,
        generator=torch.Generator(),  # a loader draws a number: from the global generator it would change resumed runs
    )


def read_image(root: Path, image: DatasetImage) -> Tensor:
    """Reads an image as uint8 [3, H, W], with the same decoder as serving. Raises UnusableImage."""
    try:
        return decode_image((root / image.path).read_bytes())
    except (ImageError, OSError) as error:
        raise UnusableImage(image.path, error) from error


def default_data_workers(device: torch.device) -> int:
    """With a GPU, all cores but one decode, at most 8. Without, none: training uses all cores, and threads decode."""
    return min(8, (os.cpu_count() or 1) - 1) if device.type == "cuda" else 0


def _identity(batch: Any) -> Any:
    return batch
