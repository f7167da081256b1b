"""Weights that a user uploads: they are checked against an architecture and published. Can also be saved as `.pth`."""

from __future__ import annotations

import errno
from datetime import datetime
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from models.architectures.catalog import build_empty, get_architecture
from models.manifest import ManifestDraft
from models.store.registry import ModelVersion, Registry
from models.store.state_dicts import check_keys, check_values, modern_keys, read_state_dict


def publish_own_weights(
    registry: Registry, name: str, path: Path, draft: ManifestDraft, *, now: datetime
) -> ModelVersion:
    """Publishes the state_dict in a safetensors or `.pth` file, if it matches the draft.

    Raises InvalidName, UnknownArchitecture, UnsupportedPreset, UnsupportedOption, UnsafeWeights, IncompatibleWeights.
    """
    return registry.publish(name, _read_fitting(path, draft), draft, now=now)


def write_pth(registry: Registry, version: ModelVersion, file: IO[bytes]) -> None:
    """Writes the version's state_dict with torch.save. Raises CorruptVersion; OSError if the disk is full."""
    state_dict = registry.state_dict(version)
    try:
        torch.save(state_dict, file)
    except RuntimeError as error:  # torch's zip writer only says that it wrote less than it meant to
        raise OSError(errno.ENOSPC, f"The weights could not be written: {error}") from error


def pth_format() -> str:
    """The name of the format that `write_pth` writes. One version of torch always writes the same bytes."""
    return f"torch-{torch.__version__}"


def _read_fitting(path: Path, draft: ManifestDraft) -> dict[str, Tensor]:
    architecture = get_architecture(draft.architecture)
    architecture.check_preset(draft.preset)
    module = build_empty(
        draft.architecture,
        num_categories=len(draft.categories),
        image_size_px=draft.preset.image_size_px,
        options=draft.options,
    )
    auxiliary = architecture.auxiliary  # heads that only training needs; the file may leave them out
    own = {key: tensor for key, tensor in module.state_dict().items() if not key.startswith(auxiliary)}
    sent = _without_outer_prefix(read_state_dict(path, called="The file"), next(iter(own)))
    brought = modern_keys(module, architecture, sent)
    brought = {key: tensor for key, tensor in brought.items() if not key.startswith(auxiliary)}
    check_keys(own, brought)
    check_values(own, brought)
    return brought


def _without_outer_prefix(state_dict: dict[str, Tensor], first: str) -> dict[str, Tensor]:
    """The tensors below the attribute that holds the network in a larger module, as in Lightning's checkpoints.

    first: the first key of the network. What stands beside the attribute, for instance a criterion, is left out.
    """
    if first in state_dict:
        return state_dict
    prefixes = [key.removesuffix(first) for key in state_dict if key.endswith(f".{first}")]
    prefix = "model." if "model." in prefixes else prefixes[0] if len(prefixes) == 1 else ""
    return {key.removeprefix(prefix): tensor for key, tensor in state_dict.items() if key.startswith(prefix)}
