"""Creates the network of a job: builds it, loads the base weights, and freezes parameters.

Sources: "Transfer learning for computer vision", PyTorch tutorials; batch normalization: Ioffe & Szegedy 2015.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.architectures.catalog import build, get_architecture
from models.store.registry import Registry
from models.store.weights import find_pretrained, load_backbone, load_base_state_dict, load_base_weights, pretrained
from workers.configs.fine_tune import ResolvedFineTune
from workers.configs.freezing import backbone_prefix, trained_parameter_names


def make_network(config: ResolvedFineTune, registry: Registry, weights_dir: Path, *, allow_download: bool) -> nn.Module:
    """Returns the architecture with a new head, with the base weights, and with frozen parameters.

    Raises the errors of `load_base_weights`, `load_backbone` and the registry.
    """
    settings, architecture, options = config.hyperparameters, get_architecture(config.architecture), config.options
    torch.manual_seed(settings.seed)
    module = build(
        architecture.name,
        num_categories=len(config.categories),
        image_size_px=settings.image_size_px,
        options=options,
    )
    if config.base is not None and is_registered(config.base):
        version = registry.resolve(config.base)
        keep_head = version.manifest.categories == config.categories  # else the head has other outputs
        state_dict = registry.state_dict(version)
        load_base_state_dict(module, architecture, state_dict, keep_head=keep_head, options=options)
    elif config.base is not None:
        entry = config.base.partition(".")[2]
        load_base_weights(module, architecture, entry, weights_dir=weights_dir, allow_download=allow_download)
    if config.backbone_base is not None:
        weights = _backbone_weights(config.backbone_base, registry, weights_dir, allow_download=allow_download)
        load_backbone(module, architecture, options, weights)
    trained = trained_parameter_names([name for name, _ in module.named_parameters()], config)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in trained)
    return module


def set_train_mode(module: nn.Module, config: ResolvedFineTune) -> None:
    """Sets training mode, except for batch normalization layers that keep the statistics of the base weights.

    For `feature_extraction`, these are all frozen layers. For detection and segmentation, whose batches are small, they
    are all layers with base weights, too (He et al. 2017, sec. 3.1, after Ren et al. 2015).
    """
    module.train()
    keeps_all = config.task != "classification" and config.base is not None
    prefix = backbone_prefix(config) if config.task != "classification" and config.backbone_base else None
    for name, child in module.named_modules():
        if isinstance(child, _BatchNorm):
            is_frozen = config.strategy == "feature_extraction" and not any(p.requires_grad for p in child.parameters())
            if is_frozen or keeps_all or (prefix is not None and name.startswith(prefix)):
                child.eval()


def _backbone_weights(
    reference: str, registry: Registry, weights_dir: Path, *, allow_download: bool
) -> dict[str, Tensor]:
    if is_registered(reference):
        return registry.state_dict(registry.resolve(reference))
    found = find_pretrained(reference)
    assert found is not None
    architecture, entry = found
    module = pretrained(architecture, entry, weights_dir=weights_dir, allow_download=allow_download)
    return module.state_dict()


def is_registered(reference: str) -> bool:
    """Returns True for a registered version, `ants-bees/2`, and False for `resnet18.IMAGENET1K_V1`."""
    return "/" in reference
