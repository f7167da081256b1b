"""Predictors from the registry and from the catalogue: the network, and the class that its task needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from models.architectures.architecture import Architecture, WeightsEntry
from models.architectures.catalog import get_architecture
from models.manifest import AnyPreset, Task
from models.predictor import AnyPredictor
from models.predictors.classification import Classifier
from models.predictors.detection import Detector
from models.predictors.segmentation import Segmenter
from models.store.registry import ModelVersion, Registry
from models.store.state_dicts import module_from_state_dict
from models.store.weights import pretrained


def load_version(registry: Registry, version: ModelVersion, device: torch.device | str) -> AnyPredictor:
    """Loads the registered version onto the device.

    Raises CorruptVersion, IncompatibleWeights, UnknownArchitecture, UnsupportedPreset, UnsupportedOption.
    """
    manifest = version.manifest
    architecture = get_architecture(manifest.architecture)
    module = load_module(registry, version)
    return _predictor(architecture, manifest.task, module, manifest.categories, manifest.preset, device)


def load_pretrained(
    architecture: Architecture,
    entry: WeightsEntry,
    *,
    weights_dir: Path,
    allow_download: bool,
    device: torch.device | str,
) -> AnyPredictor:
    """Loads a catalogue architecture with torchvision's weights and categories onto the device.

    Raises WeightsUnavailable, UnsafeWeights, IncompatibleWeights.
    """
    module = pretrained(architecture, entry, weights_dir=weights_dir, allow_download=allow_download)
    return _predictor(architecture, architecture.tasks[0], module, entry.categories, entry.preset, device)


def load_module(registry: Registry, version: ModelVersion) -> nn.Module:
    """Loads the registered network as it was trained, on the CPU. A predictor folds it, so its last digits differ.

    Raises CorruptVersion, IncompatibleWeights, UnknownArchitecture, UnsupportedPreset, UnsupportedOption.
    """
    manifest = version.manifest
    architecture = get_architecture(manifest.architecture)
    architecture.check_preset(manifest.preset)
    return module_from_state_dict(
        architecture,
        registry.state_dict(version),
        num_categories=len(manifest.categories),
        image_size_px=manifest.preset.image_size_px,
        options=manifest.options,
    )


def _predictor(
    architecture: Architecture,
    task: Task,
    module: nn.Module,
    categories: Sequence[str],
    preset: AnyPreset,
    device: torch.device | str,
) -> AnyPredictor:
    match task:
        case "classification":
            return Classifier(module, categories=categories, preset=preset, device=device)
        case "detection":
            return Detector(
                module,
                categories=categories,
                preset=preset,
                device=device,
                makes_masks=architecture.makes_masks,
                keypoints=architecture.keypoints,
            )
        case "segmentation":
            return Segmenter(module, categories=categories, preset=preset, device=device)
