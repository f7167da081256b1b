"""From files to batches of pictures and label maps."""

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
from workers.training.order import alike_in_order, image_generator
from workers.training.views import View, random_view, recoloured, through_view, uniform, whole_view

Sample = tuple[Tensor, Tensor]  # uint8 [3, h, w], uint8 [h, w]


class SegmentationBatch(NamedTuple):
    """Pictures that go through together, padded to the largest: black, and of no category."""

    pixels: Tensor  # uint8 [B, 3, h, w]
    targets: Tensor  # uint8 [B, h, w]
    indices: list[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentationImages:
    """One split of a data set, as a network with that preset sees it."""

    images: Sequence[DatasetImage]
    root: Path
    preset: ScalePreset

    def training_batches(self, options: EpochOptions) -> DataLoader[SegmentationBatch]:
        """Shuffled batches of an epoch; lying and upright pictures come apart."""
        groups = [int(image.width < image.height) for image in self.images] if self.preset.keeps_aspect else None
        batches = options.shuffled(len(self.images), groups=groups)
        sampler = _Augmented(self, options.seed, options.epoch) if options.augmentation != "none" else self.plain
        return load_batches(ImageBatches(sampler, collate), batches, options.data_workers, is_pinned=options.is_pinned)

    def evaluation_batches(self, *, batch_size: int, data_workers: int = 0) -> DataLoader[SegmentationBatch]:
        """Every image once, as serving sees it: beside images of its own size only."""
        sizes = [scaled_size(self.preset, image.height, image.width) for image in self.images]
        return load_batches(ImageBatches(self.plain, collate), alike_in_order(sizes, batch_size), data_workers)

    def read(self, index: int) -> Sample:
        """An image and its label map, in their own pixels."""
        image = self.images[index]
        return read_image(self.root, image), read_label_map(self.root, image)

    def plain(self, index: int) -> Sample:
        """An image at the preset's scale."""
        pixels, labels = self.read(index)
        return look((pixels, labels), whole_view(self.preset, pixels.shape[-2], pixels.shape[-1]))


@dataclass(frozen=True, slots=True)
class _Augmented:
    """Can go to a data worker process, as a closure cannot."""

    of: SegmentationImages
    seed: int
    epoch: int

    def __call__(self, index: int) -> Sample:
        return augment(self.of.preset, self.of.read(index), image_generator(self.seed, self.epoch, index))


def read_label_map(root: Path, image: DatasetImage) -> Tensor:
    """The index of a category at every pixel, uint8 [H, W]; VOID for none. Raises UnusableImage."""
    assert image.label_map is not None
    try:
        with Image.open(root / image.label_map) as picture:
            return torch.from_numpy(np.array(picture, dtype=np.uint8))
    except OSError as error:
        raise UnusableImage(image.label_map, error) from error


def look(sample: Sample, view: View) -> Sample:
    """What `view` shows of a picture and its label map."""
    pixels, labels = sample
    seen = through_view(tv_tensors.Mask(labels.unsqueeze(0)), view).as_subclass(Tensor)[0]
    return through_view(tv_tensors.Image(pixels), view).as_subclass(Tensor), seen


def augment(preset: ScalePreset, sample: Sample, generator: Generator) -> Sample:
    """A random view of `sample`, half the time mirrored, in changed colours."""
    view = random_view(preset, sample[0].shape[-2], sample[0].shape[-1], generator)
    pixels, labels = look(sample, view)
    if uniform(0, 1, generator) < 0.5:
        pixels, labels = pixels.flip(-1), labels.flip(-1)
    return recoloured(pixels, generator), labels


def collate(indices: list[int], samples: list[Sample]) -> SegmentationBatch:
    """A batch of the size of its largest picture, and at least as large as networks need."""
    height, width = (max(SHORTEST_PX, *(pixels.shape[axis] for pixels, _ in samples)) for axis in (-2, -1))
    pixels = [_padded(pixels, height, width, 0) for pixels, _ in samples]
    targets = [_padded(labels, height, width, VOID) for _, labels in samples]
    return SegmentationBatch(pixels=torch.stack(pixels), targets=torch.stack(targets), indices=indices)


def _padded(tensor: Tensor, height: int, width: int, value: int) -> Tensor:
    return functional.pad(tensor, (0, width - tensor.shape[-1], 0, height - tensor.shape[-2]), value=value)
