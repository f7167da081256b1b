"""Pretrained weights: finds or downloads torchvision's weights, and copies weights from a base model to a new one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models.vision_transformer import interpolate_embeddings

from models.architectures.architecture import Architecture, WeightsEntry
from models.architectures.catalog import NO_OPTIONS, build_empty, get_architecture, head_parameter_names
from models.errors import IncompatibleWeights, UnknownArchitecture, UnknownWeights, WeightsUnavailable
from models.store.downloads import download
from models.store.state_dicts import check_keys, modern_keys, module_from_state_dict, read_state_dict

DEFAULT = "DEFAULT"
BATCH_NORM_EPSILON = 1e-5  # torch's default
_POSITIONS = "encoder.pos_embedding"  # key in vision transformers, [1, 1 + patches, features]


def find_pretrained(reference: str) -> tuple[Architecture, WeightsEntry] | None:
    """The weights that `resnet50` or `resnet50.IMAGENET1K_V2` means; None if no architecture has that name.

    Raises UnknownWeights if the architecture does not have those weights.
    """
    name, dot, entry = reference.partition(".")
    try:
        architecture = get_architecture(name)
    except UnknownArchitecture:
        return None
    return architecture, get_weights(architecture, entry if dot else DEFAULT)


def get_weights(architecture: Architecture, name: str) -> WeightsEntry:
    """The entry with that name; `DEFAULT` is the entry that torchvision recommends.

    Raises UnknownWeights.
    """
    wanted = architecture.default_weights if name == DEFAULT else name
    for entry in architecture.weights:
        if entry.name == wanted:
            return entry
    known = ", ".join([DEFAULT, *(entry.name for entry in architecture.weights)])
    raise UnknownWeights(
        f"{architecture.name} has no pretrained weights {name!r}.",
        hint=f"It has {known}."
        if architecture.weights
        else "It has no pretrained weights: train it from scratch first.",
    )


def weights_path(entry: WeightsEntry, weights_dir: Path) -> Path:
    """The path of the file, even if it is missing. `weights_dir` is laid out like TORCH_HOME."""
    return weights_dir / "hub" / "checkpoints" / entry.file_name


def weights_status(entry: WeightsEntry, weights_dir: Path) -> Literal["cached", "missing"]:
    """Whether the file is in the cache."""
    return "cached" if weights_path(entry, weights_dir).is_file() else "missing"


def pretrained(
    architecture: Architecture, entry: WeightsEntry, *, weights_dir: Path, allow_download: bool
) -> nn.Module:
    """Builds the whole network with the weights of `entry`, in evaluation mode, with the entry's categories and preset.

    Raises WeightsUnavailable, UnsafeWeights, IncompatibleWeights.
    """
    state_dict = read_state_dict(_cached_file(entry, weights_dir, allow_download))
    if entry.batch_norm_epsilon is not None:
        state_dict = with_batch_norm_epsilon(state_dict, was=entry.batch_norm_epsilon)
    return module_from_state_dict(
        architecture,
        state_dict,
        num_categories=len(entry.categories),
        image_size_px=entry.preset.image_size_px,
    )


def load_base_weights(
    module: nn.Module, architecture: Architecture, entry: WeightsEntry | str, *, weights_dir: Path, allow_download: bool
) -> str:
    """Loads torchvision's weights, except the head, into `module`, and returns their reference.

    entry: `DEFAULT` and names are looked up in the architecture.
    Raises UnknownWeights, WeightsUnavailable, UnsafeWeights, IncompatibleWeights.
    """
    found = get_weights(architecture, entry) if isinstance(entry, str) else entry
    base = pretrained(architecture, found, weights_dir=weights_dir, allow_download=allow_download)
    load_base_state_dict(module, architecture, base.state_dict(), keep_head=False)
    return found.reference


def load_base_state_dict(
    module: nn.Module,
    architecture: Architecture,
    state_dict: Mapping[str, Tensor],
    *,
    keep_head: bool,
    options: Mapping[str, str] = NO_OPTIONS,
) -> None:
    """Copies another model's weights of the same architecture into `module`; auxiliary heads stay as they are.

    keep_head: copies the last layer too; correct only if the categories are the same in the same order.
    A vision transformer's position embeddings are interpolated if `module` takes images of another size.
    Raises IncompatibleWeights, and then leaves `module` unchanged.
    """
    own = {key: tensor for key, tensor in module.state_dict().items() if not key.startswith(architecture.auxiliary)}
    base = modern_keys(module, architecture, state_dict)
    base = {key: tensor for key, tensor in base.items() if not key.startswith(architecture.auxiliary)}
    if _POSITIONS in own and _POSITIONS in base:
        base[_POSITIONS] = _positions_for(own[_POSITIONS], base[_POSITIONS])
    if not keep_head:
        for key in head_parameter_names(architecture.name, options):
            base[key] = own[key]
    check_keys(own, base)
    with torch.no_grad():
        for key, tensor in own.items():
            tensor.copy_(base[key])


def load_backbone(
    module: nn.Module, architecture: Architecture, options: Mapping[str, str], state_dict: Mapping[str, Tensor]
) -> None:
    """Copies a classification network's weights into the backbone of a detector or segmentation network.

    state_dict: weights of the network that `architecture.backbone` names, from torchvision or a registered model. Keys
    that the backbone does not have, such as the classifier's head, are left out.
    Raises UnsupportedOption; IncompatibleWeights, with every key that does not fit, and then leaves `module` unchanged.
    """
    options = architecture.complete_options(options)
    if architecture.backbone is None:
        raise IncompatibleWeights(
            f"{architecture.name} has no backbone that can take the weights of a classification network.",
            hint="Start from its own pretrained weights, or from random weights.",
        )
    backbone = architecture.backbone(options)
    own = {key: tensor for key, tensor in module.state_dict().items() if key.startswith(backbone.prefix)}
    classifier = modern_keys(
        build_empty(backbone.architecture, num_categories=2), get_architecture(backbone.architecture), state_dict
    )
    base = {
        backbone.prefix + key.removeprefix(backbone.source_prefix): tensor
        for key, tensor in classifier.items()
        if key.startswith(backbone.source_prefix)
    }
    try:
        check_keys(own, {key: tensor for key, tensor in base.items() if key in own})
    except IncompatibleWeights as error:
        error.hint = f"The backbone of {architecture.name} takes the weights of {backbone.architecture}."
        raise
    with torch.no_grad():
        for key, tensor in own.items():
            tensor.copy_(base[key])


def with_batch_norm_epsilon(
    state_dict: Mapping[str, Tensor], *, was: float, becomes: float = BATCH_NORM_EPSILON
) -> dict[str, Tensor]:
    """`state_dict` converted for batch normalization with another epsilon, with the same results.

    Scales every layer's weight by sqrt((variance + becomes) / (variance + was)).
    """
    changed = dict(state_dict)
    for key, variance in state_dict.items():
        layer, dot, name = key.rpartition(".")
        if name == "running_var":
            weight = state_dict[f"{layer}{dot}weight"]
            changed[f"{layer}{dot}weight"] = weight * ((variance + becomes) / (variance + was)).sqrt()
    return changed


def _cached_file(entry: WeightsEntry, weights_dir: Path, allow_download: bool) -> Path:
    path = weights_path(entry, weights_dir)
    if path.is_file():
        return path
    if not allow_download:
        raise WeightsUnavailable(
            f"The weights {entry.reference} are not cached, and downloads are switched off.",
            hint=f"Put {entry.file_name} at {path}, or train with `weights: none`.",
        )
    digest = re.search(r"-([0-9a-f]{8,})\.", entry.file_name)  # torchvision's file names contain the digest
    download(entry.url, path, sha256_prefix=digest.group(1) if digest else "")
    return path


def _positions_for(own: Tensor, base: Tensor) -> Tensor:
    """`base` interpolated to the number of positions of `own`, both [1, 1 + side * side, features]."""
    if own.shape == base.shape:
        return base
    side = round((own.shape[1] - 1) ** 0.5)
    resized: Tensor = interpolate_embeddings(side, 1, {_POSITIONS: base})[_POSITIONS]
    return resized
