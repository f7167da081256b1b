"""Object detection as a task of the training loop: the network computes its own losses, and the metrics are COCO's.

Source: "TorchVision object detection fine-tuning", PyTorch tutorials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.architectures.catalog import get_architecture
from models.architectures.detection_outputs import keep_detections
from models.manifest import ScalePreset
from models.masks.coco_masks import encode_mask
from models.predictors import loading
from models.store.registry import ModelVersion, Registry
from workers.configs.selection import LOSS
from workers.datasets.dataset import DatasetImage
from workers.jobs.job import BestEpoch
from workers.run_directory import RunDirectory
from workers.training.detection.evaluation import DetectionEvaluation
from workers.training.detection.images import DetectionBatch, DetectionImages
from workers.training.detection.metrics import coco_scores
from workers.training.detection.proposals import ProposalCache
from workers.training.detection.shared_pass import shared_pass
from workers.training.device import autocast
from workers.training.run_inputs import RunInputs
from workers.training.task import Batches, TrainingTask, check_comparable
from workers.training.weakness import weak_detector

_MASK_THRESHOLD = 0.5


class DetectionTask(TrainingTask[DetectionBatch, DetectionEvaluation]):
    """Each object has a box, and a mask if both the network and the dataset have masks."""

    def __init__(self, inputs: RunInputs) -> None:
        super().__init__(inputs)
        preset = inputs.config.preset
        assert isinstance(preset, ScalePreset)
        self._train = self._images(inputs.train_images, preset)
        self._val = self._images(inputs.val_images, preset)

    def batches(self, *, epoch: int, first_step: int) -> Batches[DetectionBatch]:
        return self._train.training_batches(self.epoch_options(epoch, first_step))

    def indices(self, batch: DetectionBatch) -> list[int]:
        return batch.indices

    def loss(self, module: nn.Module, batch: DetectionBatch) -> Tensor:
        images, targets = to_network(batch, self.inputs.device)
        with autocast(self.inputs.device, self.inputs.precision):
            losses: Mapping[str, Tensor] = module(images, targets, **_proposal_arguments(batch, self.inputs.device))
        return torch.stack([loss.float() for loss in losses.values()]).sum()  # each loss has the weight 1

    def evaluate(self, module: nn.Module) -> DetectionEvaluation:
        return self._evaluate(module, self._val)

    def compare(self, other: ModelVersion, registry: Registry) -> dict[str, float]:
        check_comparable(other, self.inputs)
        module = loading.load_module(registry, other).to(self.inputs.device)
        architecture = get_architecture(other.manifest.architecture)
        assert isinstance(other.manifest.preset, ScalePreset)
        theirs = DetectionTask(replace(self.inputs, architecture=architecture, train_images=()))
        return theirs.evaluate_with(module, other.manifest.preset).metrics

    def evaluate_with(self, module: nn.Module, preset: ScalePreset) -> DetectionEvaluation:
        """Evaluates a network that has another preset than this run."""
        return self._evaluate(module, self._images(self.inputs.val_images, preset))

    def write_report(self, run: RunDirectory, evaluation: DetectionEvaluation, best: BestEpoch | None) -> None:
        # Imports matplotlib, which takes a second, so it is not imported before the first step.
        from workers.training.detection.report import write_report

        inputs = self.inputs
        write_report(run, evaluation, images=inputs.val_images, root=inputs.root, fonts=inputs.fonts, best=best)

    def _images(self, images: Sequence[DatasetImage], preset: ScalePreset) -> DetectionImages:
        # an evaluation may have boxes only
        with_masks = self.inputs.architecture.makes_masks and all(each.mask for one in images for each in one.objects)
        proposals = ProposalCache(self.inputs.cache) if self.inputs.architecture.uses_proposals else None
        return DetectionImages(
            images=images, root=self.inputs.root, preset=preset, with_masks=with_masks, proposals=proposals
        )

    def _has_loss(self, split: DetectionImages) -> bool:
        """Returns True if the dataset has everything that the network learns from."""
        architecture = self.inputs.architecture
        return architecture.is_trainable and split.with_masks == architecture.makes_masks

    def _evaluate(self, module: nn.Module, split: DetectionImages) -> DetectionEvaluation:
        inputs = self.inputs
        loader = split.evaluation_batches(batch_size=inputs.config.batch_size, data_workers=inputs.data_workers)
        found: dict[int, dict[str, Any]] = {}
        has_loss, loss_sum = self._has_loss(split), 0.0
        for batch in loader:
            with shared_pass(module):
                if has_loss:
                    loss_sum += validation_loss(module, batch, self) * len(batch.indices)
                found.update(zip(batch.indices, detect(module, batch, split.images, inputs), strict=True))
        detections = [found[index] for index in range(len(split.images))]
        boxes = coco_scores(detections, split.images, inputs.config.categories)
        masks = coco_scores(detections, split.images, inputs.config.categories, of="segm") if split.with_masks else None
        metrics = {"val/loss": loss_sum / max(1, len(split.images))} if has_loss else {}
        metrics |= {f"val/{name}": value for name, value in boxes.summary.items()}
        metrics.setdefault("val/map", 0.0)  # it is missing if the split has no objects
        metrics |= {f"val/map/{each.label}": each.ap for each in boxes.categories if each.ap is not None}
        if masks is not None:
            metrics |= {f"val/mask_{name}": value for name, value in masks.summary.items()}
        if self.decisive_metric != LOSS:
            metrics.setdefault(self.decisive_metric, 0.0)
        weakness = weak_detector(boxes.categories)
        return DetectionEvaluation(
            metrics=metrics, weakness=weakness, detections=tuple(detections), boxes=boxes, masks=masks
        )


def to_network(batch: DetectionBatch, device: torch.device) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Moves a batch to the device: images as float32 [3, h, w] in [0, 1], and their targets."""
    images = [image.to(device, non_blocking=True).float() / 255 for image in batch.images]
    targets = [{name: tensor.to(device, non_blocking=True) for name, tensor in each.items()} for each in batch.targets]
    return images, targets


def _proposal_arguments(batch: DetectionBatch, device: torch.device) -> dict[str, list[Tensor]]:
    """The keyword argument of networks that need proposals; empty for other networks."""
    return {} if batch.proposals is None else {"proposals": [boxes.to(device) for boxes in batch.proposals]}


@torch.no_grad()
def validation_loss(module: nn.Module, batch: DetectionBatch, task: DetectionTask) -> float:
    """Computes the training loss of a batch in the state of serving: batch normalization and dropout do not train.

    A fixed seed makes the random choice of regions the same in every evaluation.
    """
    module.train()
    for child in module.modules():
        if isinstance(child, _BatchNorm | nn.Dropout):
            child.eval()
    devices = [task.inputs.device] if task.inputs.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(batch.indices[0])
        return float(task.loss(module, batch))


@torch.inference_mode()
def detect(
    module: nn.Module, batch: DetectionBatch, images: Sequence[DatasetImage], inputs: RunInputs
) -> list[dict[str, Any]]:
    """Returns the detections on each image of the batch, in pixels of the original, with the same rules as serving."""
    module.eval()
    pixels, _ = to_network(batch, inputs.device)
    with autocast(inputs.device, inputs.precision):
        outputs: list[dict[str, Tensor]] = module(pixels, None, **_proposal_arguments(batch, inputs.device))
    found = []
    for index, image, output in zip(batch.indices, batch.images, outputs, strict=True):
        exact = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in output.items()}
        kept = {name: tensor.float().cpu() for name, tensor in keep_detections(exact).items()}
        original = images[index]
        scale = torch.tensor([original.width / image.shape[-1], original.height / image.shape[-2]]).repeat(2)
        row: dict[str, Any] = {
            "boxes": kept["boxes"] * scale,
            "labels": kept["labels"].long(),
            "scores": kept["scores"],
        }
        if "masks" in kept:
            row["masks"] = [_run_lengths(mask, original) for mask in kept["masks"]]
        found.append(row)
    return found


def _run_lengths(mask: Tensor, original: DatasetImage) -> str:
    """Encodes a predicted mask, float32 [1, h, w], in pixels of the original."""
    size = (original.height, original.width)
    full = nn.functional.interpolate(mask[None], size=size, mode="bilinear", align_corners=False)[0, 0]
    return encode_mask((full > _MASK_THRESHOLD).numpy())
