"""Loads batches of images and category indices from files.

Shapes: B images per batch, C channels, crop: the side of the network's input in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from models.images.presets import resize_and_crop
from models.manifest import Preset
from workers.datasets.dataset import DatasetImage
from workers.training.classification.augment import augment
from workers.training.loading import EpochOptions, ImageBatches, load_batches, read_image
from workers.training.order import image_generator, sequential_batches


class Batch(NamedTuple):
    """The images of one batch, with their targets."""

    pixels: Tensor  # uint8 [B, C, crop, crop]
    targets: Tensor  # int64 [B]
    indices: list[int]  # of the images in their split


def training_batches(
    images: Sequence[DatasetImage], root: Path, preset: Preset, options: EpochOptions
) -> DataLoader[Batch]:
    """Returns the shuffled batches of an epoch."""
    load_sample = partial(_augmented, images, root, preset, options.seed, options.epoch)
    if options.augmentation == "none":
        load_sample = partial(_plain, images, root, preset)
    dataset = ImageBatches(load_sample, partial(_collate, images))
    return load_batches(dataset, options.shuffled(len(images)), options.data_workers, is_pinned=options.is_pinned)


def evaluation_batches(
    images: Sequence[DatasetImage], root: Path, preset: Preset, *, batch_size: int, data_workers: int = 0
) -> DataLoader[Batch]:
    """Returns batches with every image once, in order, with the same preprocessing as serving."""
    dataset = ImageBatches(partial(_plain, images, root, preset), partial(_collate, images))
    return load_batches(dataset, sequential_batches(len(images), batch_size), data_workers)


def _plain(images: Sequence[DatasetImage], root: Path, preset: Preset, index: int) -> Tensor:
    """Reads one image: uint8 [C, crop, crop]."""
    return resize_and_crop(preset, read_image(root, images[index]))


def _augmented(images: Sequence[DatasetImage], root: Path, preset: Preset, seed: int, epoch: int, index: int) -> Tensor:
    """Reads and augments one image: uint8 [C, crop, crop]."""
    return augment(preset, read_image(root, images[index]), image_generator(seed, epoch, index))


def _collate(images: Sequence[DatasetImage], indices: list[int], pixels: list[Tensor]) -> Batch:
    categories = [images[index].category for index in indices]
    return Batch(pixels=torch.stack(pixels), targets=torch.tensor(categories), indices=indices)
