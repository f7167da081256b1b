"""From files to batches of pictures and targets in torchvision's form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from models.images.presets import scaled_size
from models.manifest import ScalePreset
from workers.datasets.dataset import DatasetImage
from workers.training.detection.augment import EncodedMasks, Sample, augment, look
from workers.training.detection.proposals import ProposalCache
from workers.training.loading import EpochOptions, ImageBatches, load_batches, read_image
from workers.training.order import alike_in_order, image_generator
from workers.training.views import whole_view


class DetectionBatch(NamedTuple):
    """Pictures that go through together, each of its own size."""

    images: list[Tensor]  # uint8 [3, h, w]
    targets: list[dict[str, Tensor]]  # boxes float32 [N, 4] xyxy, labels int64 [N], perhaps masks uint8 [N, h, w]
    indices: list[int]
    proposals: list[Tensor] | None  # float32 [P, 4] xyxy of each image, for networks that start from them


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionImages:
    """One split of a data set, as a network with that preset sees it."""

    images: Sequence[DatasetImage]
    root: Path
    preset: ScalePreset
    with_masks: bool
    proposals: ProposalCache | None = None

    def training_batches(self, options: EpochOptions) -> DataLoader[DetectionBatch]:
        """Shuffled batches of an epoch; lying and upright pictures come apart."""
        groups = [int(image.width < image.height) for image in self.images] if self.preset.keeps_aspect else None
        batches = options.shuffled(len(self.images), groups=groups)
        sampler = _Augmented(self, options.seed, options.epoch) if options.augmentation != "none" else self.plain
        return load_batches(ImageBatches(sampler, collate), batches, options.data_workers, is_pinned=options.is_pinned)

    def evaluation_batches(self, *, batch_size: int, data_workers: int = 0) -> DataLoader[DetectionBatch]:
        """Every image once, as serving sees it: beside images of its own size only."""
        sizes = [scaled_size(self.preset, image.height, image.width) for image in self.images]
        return load_batches(ImageBatches(self.plain, collate), alike_in_order(sizes, batch_size), data_workers)

    def read(self, index: int) -> Sample:
        """An image in its own pixels. Crowds are not learned: where their parts are nobody said."""
        image = self.images[index]
        objects = [each for each in image.objects if not each.is_crowd]
        masks = None
        if self.with_masks:
            counts = tuple(each.mask or "" for each in objects)
            masks = EncodedMasks(counts=counts, height=image.height, width=image.width)
        pixels = read_image(self.root, image)
        return Sample(
            image=pixels,
            boxes=torch.tensor([each.box for each in objects], dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor([each.category + 1 for each in objects], dtype=torch.int64),
            masks=masks,
            proposals=None if self.proposals is None else self.proposals.of(image, pixels, self.preset),
        )

    def plain(self, index: int) -> Sample:
        """An image at the preset's scale."""
        sample = self.read(index)
        return look(sample, whole_view(self.preset, sample.image.shape[-2], sample.image.shape[-1]))


@dataclass(frozen=True, slots=True)
class _Augmented:
    """Can go to a data worker process, as a closure cannot."""

    of: DetectionImages
    seed: int
    epoch: int

    def __call__(self, index: int) -> Sample:
        return augment(self.of.preset, self.of.read(index), image_generator(self.seed, self.epoch, index))


def collate(indices: list[int], samples: list[Sample]) -> DetectionBatch:
    """A batch, unpadded: detectors pad by themselves."""
    proposals = [sample.proposals for sample in samples if sample.proposals is not None]
    return DetectionBatch(
        images=[sample.image for sample in samples],
        targets=[target_of(sample) for sample in samples],
        indices=indices,
        proposals=proposals or None,
    )


def target_of(sample: Sample) -> dict[str, Tensor]:
    """What torchvision's detectors learn from."""
    target = {"boxes": sample.boxes, "labels": sample.labels}
    return target | {"masks": sample.masks} if isinstance(sample.masks, Tensor) else target
