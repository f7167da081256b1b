"""Reads state_dicts from untrusted files, checks them against an architecture, and loads them."""

from __future__ import annotations

import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from models.architectures.architecture import Architecture
from models.architectures.catalog import NO_OPTIONS, build_empty
from models.errors import IncompatibleWeights, UnsafeWeights
from models.store.foreign_files import (
    SAVE_HINT,
    WRAPPER_KEYS,
    allow_harmless_classes,
    explained,
    refuse_torchscript,
)

_WRAPPER_PREFIXES = ("module.", "_orig_mod.")  # added by DistributedDataParallel and torch.compile
_SHOWN_KEYS = 20

# Keys in older torchvision files, and the current keys.
_RENAMED: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\..*)$"), r"\1\2"),
    (re.compile(r"^(.*\.mlp)\.linear_1\.(.*)$"), r"\1.0.\2"),
    (re.compile(r"^(.*\.mlp)\.linear_2\.(.*)$"), r"\1.3.\2"),
    (re.compile(r"^(rpn\.head\.conv)\.(weight|bias)$"), r"\1.0.0.\2"),
    (re.compile(r"^(.*\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$"), r"\1.0.\2"),
    (re.compile(r"^(roi_heads\.mask_head)\.mask_fcn(\d)\.(.*)$"), lambda key: f"{key[1]}.{int(key[2]) - 1}.0.{key[3]}"),
    (  # older RetinaNet files number convolutions and activations together
        re.compile(r"^(head\.(?:classification|regression)_head\.conv)\.(\d)\.(weight|bias)$"),
        lambda key: f"{key[1]}.{int(key[2]) // 2}.0.{key[3]}",
    ),
)


def read_state_dict(path: Path, *, called: str | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors or `.pth` file, on the CPU. The content decides the format, not the name.

    Never runs code from the file. Finds the state_dict in a checkpoint and removes prefixes of wrappers from its keys.
    called: what messages call the file; None means its name.
    Raises UnsafeWeights, FileNotFoundError.
    """
    name = called or path.name
    with path.open("rb") as file:
        beginning = file.read(9)
    try:
        if beginning[8:] == b"{":
            content: object = safetensors.torch.load_file(path)
        else:
            refuse_torchscript(path, name)
            allow_harmless_classes()
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except UnsafeWeights:
        raise
    except Exception as error:  # a hostile or broken file can make the readers raise anything
        raise explained(path, name, error) from error
    return without_wrappers(_state_dict_in(content, name))


def without_wrappers(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state_dict` without what DistributedDataParallel, torch.compile and AveragedModel add to its keys."""
    if any(key.startswith("module.") for key in state_dict):  # AveragedModel counts beside the weights
        state_dict = {key: tensor for key, tensor in state_dict.items() if key != "n_averaged"}
    return {_without_prefixes(key): tensor for key, tensor in state_dict.items()}


def for_publishing(architecture: Architecture, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of a trained module's state_dict that a version keeps, contiguous and on the CPU.

    Leaves out prefixes of wrappers and auxiliary heads.
    """
    kept: dict[str, Tensor] = {}
    storages: set[int] = set()
    for key, tensor in without_wrappers(state_dict).items():
        if key.startswith(architecture.auxiliary):
            continue
        plain = tensor.detach().cpu().contiguous()
        storage = plain.untyped_storage().data_ptr()
        kept[key] = plain.clone() if storage in storages else plain  # safetensors refuses shared memory
        storages.add(storage)
    return kept


def save_state_dict(state_dict: Mapping[str, Tensor], path: Path) -> None:
    """Writes `state_dict` to `path` as safetensors."""
    safetensors.torch.save_file(dict(state_dict), path, metadata={"format": "pt"})


def check_state_dict(module: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Raises IncompatibleWeights with every key that is missing, unexpected or of another shape."""
    check_keys(module.state_dict(), state_dict)


def check_keys(own: Mapping[str, Tensor], state_dict: Mapping[str, Tensor]) -> None:
    """Raises IncompatibleWeights unless `state_dict` has the keys and shapes of `own`."""
    missing = [key for key in own if key not in state_dict]
    unexpected = [key for key in state_dict if key not in own]
    mismatched = [
        f"{key}: {list(tensor.shape)} instead of {list(own[key].shape)}"
        for key, tensor in state_dict.items()
        if key in own and tensor.shape != own[key].shape
    ]
    parts = (("missing", missing), ("unexpected", unexpected), ("of another shape", mismatched))
    if any(keys for _, keys in parts):
        raise IncompatibleWeights(
            f"The state_dict does not fit: {'; '.join(f'{_counted(keys)} {word}' for word, keys in parts if keys)}.",
            missing=missing,
            unexpected=unexpected,
            mismatched=mismatched,
            hint="Check the architecture, the number of categories and the image size.",
        )


def check_values(own: Mapping[str, Tensor], state_dict: Mapping[str, Tensor]) -> None:
    """Raises IncompatibleWeights if a tensor has another kind of dtype than in `own`, or contains NaN or infinities."""
    of_another_kind = [
        f"{key}: {state_dict[key].dtype}"
        for key, tensor in own.items()
        if key in state_dict and state_dict[key].is_floating_point() != tensor.is_floating_point()
    ]
    not_finite = [key for key, tensor in state_dict.items() if key in own and not bool(tensor.isfinite().all())]
    if of_another_kind or not_finite:
        parts = (
            (of_another_kind, "of the wrong type, floating point instead of integer or the reverse"),
            (not_finite, "not finite"),
        )
        said = "; ".join(f"{_counted(keys)} {word}" for keys, word in parts if keys)
        raise IncompatibleWeights(
            f"The values of the state_dict cannot be used: {said}.",
            mismatched=[*of_another_kind, *not_finite],
            hint="Save the weights as floating point numbers, from a training run that did not diverge.",
        )


def load_state_dict(module: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Loads `state_dict` into `module`, by reference where its parameters are on the meta device.

    Unlike torch's function, it works with plain dicts. MNASNet refuses those, because they lack its layout version.
    Raises IncompatibleWeights, and then leaves `module` unchanged.
    """
    check_state_dict(module, state_dict)
    own = module.state_dict()
    versioned = OrderedDict((key, tensor.to(own[key].dtype)) for key, tensor in state_dict.items())
    versioned._metadata = own._metadata  # type: ignore[attr-defined]  # noqa: SLF001 - how torch keeps layout versions
    empty = any(parameter.is_meta for parameter in module.parameters())
    module.load_state_dict(versioned, assign=empty)


def module_from_state_dict(
    architecture: Architecture,
    state_dict: Mapping[str, Tensor],
    *,
    num_categories: int,
    image_size_px: int,
    options: Mapping[str, str] = NO_OPTIONS,
) -> nn.Module:
    """Builds the network with those weights, in evaluation mode, without auxiliary heads.

    Shares memory with `state_dict`. Accepts torchvision's older keys.
    Raises IncompatibleWeights, UnsupportedPreset, UnsupportedOption.
    """
    module = build_empty(architecture.name, num_categories=num_categories, image_size_px=image_size_px, options=options)
    load_state_dict(module, modern_keys(module, architecture, state_dict))
    return module.eval()


def modern_keys(module: nn.Module, architecture: Architecture, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state_dict` with the keys that `module` has.

    Renames torchvision's older keys, drops auxiliary heads that `module` does not have, and adds BatchNorm's counters
    to files that are too old to have them.
    """
    own = module.state_dict()
    renamed = {
        key if key in own else _modern(key): tensor
        for key, tensor in state_dict.items()
        if key in own or not key.startswith(architecture.auxiliary)
    }
    counters = (key for key in own if key.endswith(".num_batches_tracked") and key not in renamed)
    return renamed | {key: torch.tensor(0) for key in counters}


def _state_dict_in(content: object, name: str) -> dict[str, Tensor]:
    for key in WRAPPER_KEYS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise UnsafeWeights(f"{name} does not contain a state_dict.", hint=SAVE_HINT)
    tensors: dict[str, Tensor] = {}
    for key, value in content.items():
        if not isinstance(key, str) or not _is_plain(value):
            raise UnsafeWeights(f"{name} contains {str(key)[:80]!r}, which is not a plain tensor.", hint=SAVE_HINT)
        tensors[key] = value
    return tensors


def _is_plain(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and not value.is_meta and not value.is_quantized


def _without_prefixes(key: str) -> str:
    while (prefix := next((prefix for prefix in _WRAPPER_PREFIXES if key.startswith(prefix)), None)) is not None:
        key = key.removeprefix(prefix)
    return key.replace("._orig_mod.", ".")


def _modern(key: str) -> str:
    for pattern, replacement in _RENAMED:
        key = pattern.sub(replacement, key)
    return key


def _counted(keys: Sequence[str]) -> str:
    shown = ", ".join(keys[:_SHOWN_KEYS])
    return f"{len(keys)} keys ({shown}{', …' if len(keys) > _SHOWN_KEYS else ''})"
