"""Semantic segmentation as a task of the training loop: cross entropy at every pixel, intersection over union (IoU).

Shapes: B images per batch, K categories, H x W pixels of the original image, h x w pixels of the network's input.
Source: Long et al. 2015, sec. 5 (metrics); torchvision's segmentation reference (the auxiliary loss counts half).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.images.presets import normalise, scaled_size
from models.manifest import ScalePreset
from models.predictors import loading
from models.predictors.segmentation import label_map
from models.store.registry import ModelVersion, Registry
from workers.datasets.dataset import VOID
from workers.jobs.job import BestEpoch
from workers.run_directory import RunDirectory
from workers.training.confusion import confusion_matrix
from workers.training.device import autocast
from workers.training.run_inputs import RunInputs
from workers.training.segmentation.evaluation import SegmentationEvaluation
from workers.training.segmentation.images import SegmentationBatch, SegmentationImages, read_label_map
from workers.training.task import Batches, TrainingTask, check_comparable
from workers.training.weakness import weak_segmenter

AUXILIARY_WEIGHT = 0.5
WORST_IMAGES = 8  # images drawn in the report


class SegmentationTask(TrainingTask[SegmentationBatch, SegmentationEvaluation]):
    """Each pixel has one category, or none (VOID)."""

    def __init__(self, inputs: RunInputs) -> None:
        super().__init__(inputs)
        preset = inputs.config.preset
        assert isinstance(preset, ScalePreset)
        self._preset = preset
        self._train = SegmentationImages(images=inputs.train_images, root=inputs.root, preset=preset)
        self._val = SegmentationImages(images=inputs.val_images, root=inputs.root, preset=preset)

    def batches(self, *, epoch: int, first_step: int) -> Batches[SegmentationBatch]:
        return self._train.training_batches(self.epoch_options(epoch, first_step))

    def indices(self, batch: SegmentationBatch) -> list[int]:
        return batch.indices

    def loss(self, module: nn.Module, batch: SegmentationBatch) -> Tensor:
        pixels, targets = to_network(batch, self._preset, self.inputs.device)
        with autocast(self.inputs.device, self.inputs.precision):
            outputs: Mapping[str, Tensor] = module(pixels)  # each [B, K, h, w]
        loss = pixel_loss(outputs["out"], targets)
        return loss + AUXILIARY_WEIGHT * pixel_loss(outputs["aux"], targets) if "aux" in outputs else loss

    def evaluate(self, module: nn.Module) -> SegmentationEvaluation:
        return self._evaluate(module, self._val)

    def compare(self, other: ModelVersion, registry: Registry) -> dict[str, float]:
        check_comparable(other, self.inputs)
        predictor = loading.load_version(registry, other, self.inputs.device)
        preset = other.manifest.preset
        assert isinstance(preset, ScalePreset)
        split = SegmentationImages(images=self.inputs.val_images, root=self.inputs.root, preset=preset)
        return self._evaluate(predictor.module, split).metrics

    def write_report(self, run: RunDirectory, evaluation: SegmentationEvaluation, best: BestEpoch | None) -> None:
        # Imports matplotlib, which takes a second, so it is not imported before the first step.
        from workers.training.segmentation.report import write_report

        write_report(run, evaluation, inputs=self.inputs, best=best)

    @torch.inference_mode()
    def _evaluate(self, module: nn.Module, split: SegmentationImages) -> SegmentationEvaluation:
        module.eval()
        inputs, count = self.inputs, len(self.inputs.config.categories)
        matrix = torch.zeros((count, count), dtype=torch.int64)
        accuracies: dict[int, float] = {}
        worst: dict[int, Tensor] = {}
        loss_sum = 0.0
        loader = split.evaluation_batches(batch_size=inputs.config.batch_size, data_workers=inputs.data_workers)
        for batch in loader:
            pixels, targets = to_network(batch, split.preset, inputs.device)
            with autocast(inputs.device, inputs.precision):
                logits = module(pixels)["out"].float()  # [B, K, h, w]
            loss_sum += float(pixel_loss(logits, targets)) * len(batch.indices)
            for index, padded, size in zip(batch.indices, logits, _unpadded_sizes(batch, split), strict=True):
                image = split.images[index]
                image_logits = padded[:, : size[0], : size[1]].cpu()  # [K, h, w]; waits for the device here
                predicted = torch.from_numpy(label_map(image_logits, width=image.width, height=image.height))  # [H, W]
                counts = _confusion_counts(read_label_map(split.root, image), predicted, count)
                matrix += counts
                accuracies[index] = float(counts.trace() / counts.sum().clamp(min=1))
                worst[index] = predicted
                if len(worst) > WORST_IMAGES:
                    del worst[max(worst, key=lambda number: (accuracies[number], -number))]
        metrics = {
            "val/loss": loss_sum / max(1, len(split.images)),
            **segmentation_metrics(matrix, inputs.config.categories),
        }
        return SegmentationEvaluation(
            metrics=metrics,
            weakness=weak_segmenter(matrix, inputs.config.categories),
            matrix=matrix,
            accuracies=tuple(accuracies[index] for index in range(len(split.images))),
            worst=worst,
        )


def to_network(batch: SegmentationBatch, preset: ScalePreset, device: torch.device) -> tuple[Tensor, Tensor]:
    """Moves a batch to the device: pixels, float32 [B, 3, h, w] in channels-last order; targets, int64 [B, h, w]."""
    pixels, targets = (tensor.to(device, non_blocking=True) for tensor in (batch.pixels, batch.targets))
    return normalise(preset, pixels).contiguous(memory_format=torch.channels_last), targets.long()


def pixel_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns the mean cross entropy of logits [B, K, h, w] and targets, int64 [B, h, w], without VOID pixels."""
    total = functional.cross_entropy(logits.float(), targets, ignore_index=VOID, reduction="sum")
    return total / (targets != VOID).sum().clamp(min=1)


def segmentation_metrics(matrix: Tensor, categories: Sequence[str]) -> dict[str, float]:
    """Computes mean IoU, pixel accuracy and the IoU of each category that occurs, from a confusion matrix [K, K]."""
    hits = matrix.diagonal().double()  # [K]
    union = matrix.sum(dim=0) + matrix.sum(dim=1) - matrix.diagonal()  # [K]
    occurs = union > 0
    ious = hits / union.clamp(min=1)
    metrics = {
        "val/miou": float(ious[occurs].mean()) if bool(occurs.any()) else 0.0,
        "val/pixel_accuracy": float(hits.sum() / matrix.sum().clamp(min=1)),
    }
    return metrics | {
        f"val/iou/{label}": float(ious[index]) for index, label in enumerate(categories) if bool(occurs[index])
    }


def _confusion_counts(truth: Tensor, predicted: Tensor, categories: int) -> Tensor:
    """The confusion matrix of one image, [K, K], without VOID pixels."""
    known = truth != VOID
    return confusion_matrix(truth[known].long(), predicted[known].long(), categories)


def _unpadded_sizes(batch: SegmentationBatch, split: SegmentationImages) -> list[tuple[int, int]]:
    """The height and width of each image without its padding."""
    return [scaled_size(split.preset, split.images[index].height, split.images[index].width) for index in batch.indices]
