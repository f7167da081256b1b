"""From a job's configuration to the network that learns: built, base weights loaded, frozen where it must not learn.

Sources: "Transfer learning for computer vision", PyTorch tutorials; for what frozen batch normalization means, Ioffe &
Szegedy 2015.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.architectures.catalog import build, get_architecture, head_parameter_names
from models.registry import Registry
from models.weights import load_base_state_dict, load_base_weights
from workers.fine_tune_config import ResolvedFineTune, Strategy


def make_network(config: ResolvedFineTune, registry: Registry, weights_dir: Path, *, allow_download: bool) -> nn.Module:
    """The architecture with a new head, base weights loaded, and what must not learn frozen.

    Raises what `load_base_weights` and the registry raise.
    """
    settings, architecture = config.hyperparameters, get_architecture(config.architecture)
    torch.manual_seed(settings.seed)
    module = build(
        config.architecture,
        num_categories=len(config.categories),
        image_size_px=settings.image_size_px,
        options=config.options,
    )
    if config.base is not None and "/" in config.base:
        version = registry.resolve(config.base)
        # with the same categories the head goes on learning too
        keep_head = version.manifest.categories == config.categories
        load_base_state_dict(module, architecture, registry.state_dict(version), keep_head=keep_head)
    elif config.base is not None:
        entry = config.base.partition(".")[2]
        load_base_weights(module, architecture, entry, weights_dir=weights_dir, allow_download=allow_download)
    if config.strategy == "feature_extraction":
        head = head_parameter_names(config.architecture, config.options)
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
