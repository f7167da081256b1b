"""Loads batches of images and targets, in the form of torchvision's detectors, from files.

Shapes: N objects and P proposals per image, h x w pixels of the network's input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from models.images.presets import scaled_size
from models.manifest import ScalePreset
from workers.datasets.dataset import DatasetImage, DatasetObject
from workers.training.detection.augment import DetectionSample, EncodedMasks, augment, view_sample
from workers.training.detection.ignored_regions import blank_ignored, is_ignored
from workers.training.detection.proposals import ProposalCache
from workers.training.loading import EpochOptions, ImageBatches, load_batches, read_image
from workers.training.order import batches_of_equal_size, image_generator
from workers.training.views import whole_view


class DetectionBatch(NamedTuple):
    """The images of one batch, which may differ in size, with their targets."""

    images: list[Tensor]  # uint8 [3, h, w]
    targets: list[dict[str, Tensor]]  # boxes float32 [N, 4] xyxy, labels int64 [N], optionally masks uint8 [N, h, w]
    indices: list[int]  # of the images in their split
    proposals: list[Tensor] | None  # float32 [P, 4] xyxy per image, for networks that need proposals


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionImages:
    """One split of a dataset, for a network with a given preset."""

    images: Sequence[DatasetImage]
    root: Path
    preset: ScalePreset
    with_masks: bool
    proposals: ProposalCache | None = None

    def training_batches(self, options: EpochOptions) -> DataLoader[DetectionBatch]:
        """Returns the shuffled batches of an epoch; landscape and portrait images form separate batches."""
        groups = [int(image.width < image.height) for image in self.images] if self.preset.keeps_aspect else None
        batches = options.shuffled(len(self.images), groups=groups)
        load_sample = _Augmented(self, options.seed, options.epoch) if options.augmentation != "none" else self.learned
        dataset = ImageBatches(load_sample, collate)
        return load_batches(dataset, batches, options.data_workers, is_pinned=options.is_pinned)

    def evaluation_batches(self, *, batch_size: int, data_workers: int = 0) -> DataLoader[DetectionBatch]:
        """Returns batches with every image once, with the same preprocessing as serving and without padding."""
        sizes = [scaled_size(self.preset, image.height, image.width) for image in self.images]
        return load_batches(ImageBatches(self.plain, collate), batches_of_equal_size(sizes, batch_size), data_workers)

    def read(self, index: int) -> DetectionSample:
        """Reads an image and its objects in the original size, without crowds, whose single objects are unknown."""
        return self._sample(index, [each for each in self.images[index].objects if not each.is_crowd])

    def read_for_training(self, index: int) -> DetectionSample:
        """Reads an image and its objects in the original size; crowds and difficult objects are blanked."""
        image = self.images[index]
        sample = self._sample(index, [each for each in image.objects if not is_ignored(each)])
        return replace(sample, image=blank_ignored(sample.image, image))

    def _sample(self, index: int, objects: Sequence[DatasetObject]) -> DetectionSample:
        image = self.images[index]
        masks = None
        if self.with_masks:
            counts = tuple(each.mask or "" for each in objects)
            masks = EncodedMasks(counts=counts, height=image.height, width=image.width)
        pixels = read_image(self.root, image)
        return DetectionSample(
            image=pixels,
            boxes=torch.tensor([each.box for each in objects], dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor([each.category + 1 for each in objects], dtype=torch.int64),
            masks=masks,
            proposals=None if self.proposals is None else self.proposals.of(image, pixels, self.preset),
        )

    def plain(self, index: int) -> DetectionSample:
        """Reads an image and its objects at the scale of the preset, for evaluation."""
        return self._scaled(self.read(index))

    def learned(self, index: int) -> DetectionSample:
        """Reads an image and its objects at the scale of the preset, for training without augmentation."""
        return self._scaled(self.read_for_training(index))

    def _scaled(self, sample: DetectionSample) -> DetectionSample:
        return view_sample(sample, whole_view(self.preset, sample.image.shape[-2], sample.image.shape[-1]))


@dataclass(frozen=True, slots=True)
class _Augmented:
    """Reads and augments samples. It is a class because a data worker process cannot receive a closure."""

    images: DetectionImages
    seed: int
    epoch: int

    def __call__(self, index: int) -> DetectionSample:
        sample = self.images.read_for_training(index)
        return augment(self.images.preset, sample, image_generator(self.seed, self.epoch, index))


def collate(indices: list[int], samples: list[DetectionSample]) -> DetectionBatch:
    """Forms a batch without padding: detectors pad by themselves."""
    proposals = [sample.proposals for sample in samples if sample.proposals is not None]
    return DetectionBatch(
        images=[sample.image for sample in samples],
        targets=[torchvision_target(sample) for sample in samples],
        indices=indices,
        proposals=proposals or None,
    )


def torchvision_target(sample: DetectionSample) -> dict[str, Tensor]:
    """Returns the target of an image in the form of torchvision's detectors."""
    target = {"boxes": sample.boxes, "labels": sample.labels}
    return target | {"masks": sample.masks} if isinstance(sample.masks, Tensor) else target
