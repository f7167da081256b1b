"""Image classification as a task: which network, which loss, which metrics.

Sources: "Training a classifier" and "Transfer learning for computer vision", PyTorch tutorials; for what frozen batch
normalization means, Ioffe & Szegedy 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from models.architectures.architecture import split_outputs
from models.architectures.catalog import build, get_architecture, head_parameter_names
from models.manifest import Preset
from models.presets import normalise
from models.registry import Registry
from models.weights import load_base_state_dict, load_base_weights
from workers.datasets.dataset import DatasetImage
from workers.fine_tune_config import ResolvedFineTune, Strategy
from workers.training.device import autocast
from workers.training.images import Batch, evaluation_batches

DECISIVE_METRIC = "val/top1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """How a network does on one split."""

    metrics: dict[str, float]
    targets: Tensor  # int64 [N]
    scores: Tensor  # float32 [N, K], probabilities


def make_network(config: ResolvedFineTune, registry: Registry, weights_dir: Path, *, allow_download: bool) -> nn.Module:
    """The architecture with a new head, base weights loaded, and what must not learn frozen.

    Raises what `load_base_weights` and the registry raise.
    """
    settings, architecture = config.hyperparameters, get_architecture(config.architecture)
    torch.manual_seed(settings.seed)
    module = build(config.architecture, num_categories=len(config.categories), image_size_px=settings.image_size_px)
    if config.base is not None and "/" in config.base:
        version = registry.resolve(config.base)
        # with the same categories the head goes on learning too
        keep_head = version.manifest.categories == config.categories
        load_base_state_dict(module, architecture, registry.state_dict(version), keep_head=keep_head)
    elif config.base is not None:
        entry = config.base.partition(".")[2]
        load_base_weights(module, architecture, entry, weights_dir=weights_dir, allow_download=allow_download)
    if config.strategy == "feature_extraction":
        head = head_parameter_names(config.architecture)
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in head)
    return module


def set_train_mode(module: nn.Module, strategy: Strategy) -> None:
    """Train mode; with only the head learning, batch normalization keeps the statistics the backbone came with."""
    module.train()
    if strategy == "feature_extraction":
        for child in module.modules():
            if isinstance(child, _BatchNorm) and not any(p.requires_grad for p in child.parameters()):
                child.eval()


def training_loss(
    outputs: Tensor | tuple[Tensor | None, ...], targets: Tensor, *, label_smoothing: float, auxiliary_weight: float
) -> Tensor:
    """Cross entropy of logits [B, K] and int64 [B]; each auxiliary head's logits count `auxiliary_weight`."""
    logits, auxiliary = split_outputs(outputs)
    loss = functional.cross_entropy(logits.float(), targets, label_smoothing=label_smoothing)
    for head in auxiliary:
        head_loss = functional.cross_entropy(head.float(), targets, label_smoothing=label_smoothing)
        loss = loss + auxiliary_weight * head_loss
    return loss


def to_network(batch: Batch, preset: Preset, device: torch.device) -> tuple[Tensor, Tensor]:
    """float32 [B, C, crop, crop] in channels-last order and int64 [B], on the device."""
    pixels, targets = (tensor.to(device, non_blocking=True) for tensor in batch)
    return normalise(preset, pixels).contiguous(memory_format=torch.channels_last), targets


@torch.inference_mode()
def evaluate(
    module: nn.Module,
    images: Sequence[DatasetImage],
    root: Path,
    preset: Preset,
    *,
    batch_size: int,
    device: torch.device,
    precision: str,
    data_workers: int = 0,
) -> Evaluation:
    """Loss, top-1 and top-5 accuracy of logits [B, K] on a split, in eval mode, each image once."""
    module.eval()
    loader = evaluation_batches(images, root, preset, batch_size=batch_size, data_workers=data_workers)
    logits, targets = [], []
    for batch in loader:
        pixels, batch_targets = to_network(batch, preset, device)
        with autocast(device, "bf16" if precision == "bf16" else "fp32"):
            logits.append(module(pixels).float().cpu())  # [B, K]; waits for the device
        targets.append(batch_targets.cpu())
    return score(torch.cat(logits), torch.cat(targets))


def score(logits: Tensor, targets: Tensor) -> Evaluation:
    """Metrics of logits [N, K] and int64 targets [N]; `val/top5` where there are more than five categories."""
    ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices  # [N, <=5]
    hits = ranked == targets.unsqueeze(1)
    metrics = {
        "val/loss": float(functional.cross_entropy(logits, targets)),
        "val/top1": float(hits[:, 0].float().mean()),
    }
    if logits.shape[1] > 5:
        metrics["val/top5"] = float(hits.any(dim=1).float().mean())
    return Evaluation(metrics=metrics, targets=targets, scores=logits.softmax(dim=1))
