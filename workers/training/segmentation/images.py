"""Loads batches of images and label maps from files.

Shapes: B images per batch, H x W pixels of the original image, h x w pixels after a view or of the network's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision import tv_tensors

from models.images.presets import scaled_size
from models.manifest import ScalePreset
from models.predictors.segmentation import SHORTEST_PX
from workers.datasets.dataset import VOID, DatasetImage
from workers.training.failures import UnusableImage
from workers.training.loading import EpochOptions, ImageBatches, load_batches, read_image
from workers.training.order import batches_of_equal_size, image_generator
from workers.training.views import View, apply_view, jitter_colours, random_view, uniform, whole_view

SegmentationSample = tuple[Tensor, Tensor]  # an image, uint8 [3, h, w], and its label map, uint8 [h, w]


class SegmentationBatch(NamedTuple):
    """The images of one batch with their label maps, padded to the largest image with black and VOID."""

    pixels: Tensor  # uint8 [B, 3, h, w]
    targets: Tensor  # uint8 [B, h, w]
    indices: list[int]  # of the images in their split


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentationImages:
    """One split of a dataset, for a network with a given preset."""

    images: Sequence[DatasetImage]
    root: Path
    preset: ScalePreset

    def training_batches(self, options: EpochOptions) -> DataLoader[SegmentationBatch]:
        """Returns the shuffled batches of an epoch; landscape and portrait images form separate batches."""
        groups = [int(image.width < image.height) for image in self.images] if self.preset.keeps_aspect else None
        batches = options.shuffled(len(self.images), groups=groups)
        load_sample = _Augmented(self, options.seed, options.epoch) if options.augmentation != "none" else self.plain
        dataset = ImageBatches(load_sample, collate)
        return load_batches(dataset, batches, options.data_workers, is_pinned=options.is_pinned)

    def evaluation_batches(self, *, batch_size: int, data_workers: int = 0) -> DataLoader[SegmentationBatch]:
        """Returns batches with every image once, with the same preprocessing as serving and without padding."""
        sizes = [scaled_size(self.preset, image.height, image.width) for image in self.images]
        return load_batches(ImageBatches(self.plain, collate), batches_of_equal_size(sizes, batch_size), data_workers)

    def read(self, index: int) -> SegmentationSample:
        """Reads an image and its label map in their original size."""
        image = self.images[index]
        return read_image(self.root, image), read_label_map(self.root, image)

    def plain(self, index: int) -> SegmentationSample:
        """Reads an image and its label map at the scale of the preset."""
        pixels, labels = self.read(index)
        return view_sample((pixels, labels), whole_view(self.preset, pixels.shape[-2], pixels.shape[-1]))


@dataclass(frozen=True, slots=True)
class _Augmented:
    """Reads and augments samples. It is a class because a data worker process cannot receive a closure."""

    images: SegmentationImages
    seed: int
    epoch: int

    def __call__(self, index: int) -> SegmentationSample:
        return augment(self.images.preset, self.images.read(index), image_generator(self.seed, self.epoch, index))


def read_label_map(root: Path, image: DatasetImage) -> Tensor:
    """Reads the label map of an image: a category index or VOID at every pixel, uint8 [H, W]. Raises UnusableImage."""
    assert image.label_map is not None
    try:
        with Image.open(root / image.label_map) as label_map:
            return torch.from_numpy(np.array(label_map, dtype=np.uint8))
    except OSError as error:
        raise UnusableImage(image.label_map, error) from error


def view_sample(sample: SegmentationSample, view: View) -> SegmentationSample:
    """Applies `view` to an image and its label map."""
    pixels, labels = sample
    viewed_labels = apply_view(tv_tensors.Mask(labels.unsqueeze(0)), view).as_subclass(Tensor)[0]
    return apply_view(tv_tensors.Image(pixels), view).as_subclass(Tensor), viewed_labels


def augment(preset: ScalePreset, sample: SegmentationSample, generator: Generator) -> SegmentationSample:
    """Returns a random view of `sample`, mirrored half the time, with other colours."""
    view = random_view(preset, sample[0].shape[-2], sample[0].shape[-1], generator)
    pixels, labels = view_sample(sample, view)
    if uniform(0, 1, generator) < 0.5:
        pixels, labels = pixels.flip(-1), labels.flip(-1)
    return jitter_colours(pixels, generator), labels


def collate(indices: list[int], samples: list[SegmentationSample]) -> SegmentationBatch:
    """Pads the samples to the largest of them, and to the smallest size that networks accept."""
    height, width = (max(SHORTEST_PX, *(pixels.shape[axis] for pixels, _ in samples)) for axis in (-2, -1))
    pixels = [_padded(pixels, height, width, 0) for pixels, _ in samples]
    targets = [_padded(labels, height, width, VOID) for _, labels in samples]
    return SegmentationBatch(pixels=torch.stack(pixels), targets=torch.stack(targets), indices=indices)


def _padded(tensor: Tensor, height: int, width: int, value: int) -> Tensor:
    return functional.pad(tensor, (0, width - tensor.shape[-1], 0, height - tensor.shape[-2]), value=value)
