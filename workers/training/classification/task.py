"""Image classification as a task of the training loop: its loss and its metrics.

Shapes: B images per batch, N images per split, K categories, C channels, h x w pixels of the network's input.
Sources: "Training a classifier" and "Transfer learning for computer vision", PyTorch tutorials.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.architectures.architecture import split_outputs
from models.errors import RegistryError
from models.images.presets import normalise
from models.manifest import Preset
from models.precision import FloatPrecision
from models.predictors import loading
from models.store.registry import ModelVersion, Registry
from workers.datasets.dataset import DatasetImage
from workers.jobs.job import BestEpoch
from workers.run_directory import RunDirectory
from workers.training.classification.evaluation import ClassificationEvaluation
from workers.training.classification.images import Batch, evaluation_batches, training_batches
from workers.training.confusion import confusion_matrix
from workers.training.device import autocast
from workers.training.run_inputs import RunInputs
from workers.training.task import Batches, TrainingTask
from workers.training.weakness import weak_classifier


class ClassificationTask(TrainingTask[Batch, ClassificationEvaluation]):
    """Each image has one category."""

    def __init__(self, inputs: RunInputs) -> None:
        super().__init__(inputs)
        assert isinstance(inputs.config.preset, Preset)
        self._preset = inputs.config.preset

    def batches(self, *, epoch: int, first_step: int) -> Batches[Batch]:
        return training_batches(
            self.inputs.train_images, self.inputs.root, self._preset, self.epoch_options(epoch, first_step)
        )

    def indices(self, batch: Batch) -> list[int]:
        return batch.indices

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        pixels, targets = to_network(batch, self._preset, self.inputs.device)  # [B, C, h, w], [B]
        with autocast(self.inputs.device, self.inputs.precision):
            outputs = module(pixels)  # [B, K], or a tuple of those with auxiliary classifiers
            return training_loss(
                outputs,
                targets,
                label_smoothing=self.inputs.fine_tune.hyperparameters.label_smoothing,
                auxiliary_weight=self.inputs.architecture.auxiliary_weight,
            )

    def evaluate(self, module: nn.Module) -> ClassificationEvaluation:
        return self._evaluate(module, self._preset)

    def compare(self, other: ModelVersion, registry: Registry) -> dict[str, float]:
        manifest, categories = other.manifest, self.inputs.config.categories
        if manifest.task != "classification":
            raise RegistryError(f"it is for {manifest.task}, not for classification")
        if set(manifest.categories) != set(categories):
            msg = f"its categories differ: {', '.join(sorted(set(manifest.categories) ^ set(categories))[:10])}"
            raise RegistryError(msg)
        predictor = loading.load_version(registry, other, self.inputs.device)
        assert isinstance(predictor.preset, Preset)
        evaluation = self._evaluate(predictor.module, predictor.preset)
        order = [manifest.categories.index(label) for label in categories]  # the order of this run
        return evaluate_logits(evaluation.scores[:, order].log(), evaluation.targets, categories).metrics

    def write_report(self, run: RunDirectory, evaluation: ClassificationEvaluation, best: BestEpoch | None) -> None:
        # Imports matplotlib, which takes a second, so it is not imported before the first step.
        from workers.training.classification.report import write_report

        write_report(
            run,
            evaluation,
            categories=self.inputs.config.categories,
            images=self.inputs.val_images,
            root=self.inputs.root,
            fonts=self.inputs.fonts,
            best=best,
        )

    def _evaluate(self, module: nn.Module, preset: Preset) -> ClassificationEvaluation:
        return evaluate(
            module,
            self.inputs.val_images,
            self.inputs.root,
            preset,
            categories=self.inputs.config.categories,
            batch_size=self.inputs.config.batch_size,
            device=self.inputs.device,
            precision=self.inputs.precision,
            data_workers=self.inputs.data_workers,
        )


def training_loss(
    outputs: Tensor | tuple[Tensor | None, ...], targets: Tensor, *, label_smoothing: float, auxiliary_weight: float
) -> Tensor:
    """Returns the mean cross entropy of logits [B, K] and targets, int64 [B].

    auxiliary_weight: the weight of the cross entropy of each auxiliary head.
    """
    logits, auxiliary = split_outputs(outputs)
    loss = functional.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing)
    for head in auxiliary:
        head_loss = functional.cross_entropy(head.float(), targets, label_smoothing=label_smoothing)
        loss = loss + auxiliary_weight * head_loss
    return loss


def to_network(batch: Batch, preset: Preset, device: torch.device) -> tuple[Tensor, Tensor]:
    """float32 [B, C, crop, crop] in channels-last order and int64 [B], on the device."""
    pixels, targets = (tensor.to(device, non_blocking=True) for tensor in (batch.pixels, batch.targets))
    return normalise(preset, pixels).contiguous(memory_format=torch.channels_last), targets


@torch.inference_mode()
def evaluate(
    module: nn.Module,
    images: Sequence[DatasetImage],
    root: Path,
    preset: Preset,
    *,
    categories: Sequence[str],
    batch_size: int,
    device: torch.device,
    precision: FloatPrecision,
    data_workers: int = 0,
) -> ClassificationEvaluation:
    """Evaluates `module` on each image of a split once, in evaluation mode: loss, accuracy and F1."""
    module.eval()
    loader = evaluation_batches(images, root, preset, batch_size=batch_size, data_workers=data_workers)
    logits, targets = [], []
    for batch in loader:
        pixels, batch_targets = to_network(batch, preset, device)
        with autocast(device, precision):
            logits.append(module(pixels).float().cpu())  # [B, K]; waits for the device here
        targets.append(batch_targets.cpu())
    return evaluate_logits(torch.cat(logits), torch.cat(targets), categories)


def evaluate_logits(logits: Tensor, targets: Tensor, categories: Sequence[str]) -> ClassificationEvaluation:
    """Computes the metrics of logits [N, K] and int64 targets [N]; `val/top5` only with more than five categories.

    `val/f1` is the mean F1 over the categories that the split has or the network answers.
    """
    ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices  # [N, <=5]
    hits = ranked == targets.unsqueeze(1)  # [N, <=5]
    matrix = confusion_matrix(targets, ranked[:, 0], logits.shape[1])  # [K, K]
    either = matrix.sum(dim=0) + matrix.sum(dim=1)  # [K]
    metrics = {
        "val/loss": float(functional.cross_entropy(logits, targets)),
        "val/top1": float(hits[:, 0].float().mean()),
        "val/f1": float((2 * matrix.diagonal()[either > 0] / either[either > 0]).mean()),
    }
    if logits.shape[1] > 5:
        metrics["val/top5"] = float(hits.any(dim=1).float().mean())
    return ClassificationEvaluation(
        metrics=metrics,
        weakness=weak_classifier(matrix, categories),
        targets=targets,
        scores=logits.softmax(dim=1),
    )
