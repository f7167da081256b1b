"""Every network Fovea can train and serve, by name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models import architectures
from models.architectures.architecture import REGISTERED, Architecture, Description, NetworkRequest
from models.errors import UnknownArchitecture
from models.manifest import Task

NO_OPTIONS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """A module that holds parameters of its own, or that has no submodules."""

    name: str
    type: str
    parameters: int


def names(task: Task | None = None) -> list[str]:
    """Catalogue names, sorted; with `task`, only those that can do it. Builds nothing."""
    return sorted(name for of_task, described in _registered().items() if task in (None, of_task) for name in described)


def get_architecture(name: str) -> Architecture:
    """What the catalogue knows about `name`. Builds nothing.

    Raises UnknownArchitecture.
    """
    describe = next((described[name] for described in _registered().values() if name in described), None)
    if describe is None:
        shown = name if len(name) <= 64 else name[:64] + "…"
        raise UnknownArchitecture(f"There is no architecture {shown!r}.", hint=_hint(name, names()))
    return describe(name)


@cache
def _registered() -> Mapping[Task, Mapping[str, Description]]:
    """What `register` has collected, after importing every file of this package."""
    for module in pkgutil.iter_modules(architectures.__path__, architectures.__name__ + "."):
        importlib.import_module(module.name)
    return REGISTERED


def _hint(name: str, known: list[str]) -> str:
    close = get_close_matches(name.lower(), known, n=5, cutoff=0.5)
    return f"Did you mean {' or '.join(close)}?" if close else f"There are {len(known)}, resnet18 and vit_b_16 for two."


def build(
    name: str,
    *,
    num_categories: int,
    image_size_px: int | None = None,
    auxiliary: bool = True,
    options: Mapping[str, str] = NO_OPTIONS,
) -> nn.Module:
    """The network `name` with fresh random weights, in training mode, on the CPU.

    num_categories: for detectors, the categories of objects; a background is added where the network needs one.
    image_size_px: side of the images it takes; None: its preset's.
    auxiliary: build the heads that only training uses. GoogLeNet and Inception v3 (from 299 px) return their logits in
    training mode, see `split_outputs`; segmentation networks return them as `aux`.
    options: options left out have their defaults.
    Classification logits are [B, num_categories]. Detectors have torchvision's interface: images and targets in,
    losses or detections out. The weights are drawn from torch's global generator.
    Raises UnknownArchitecture, UnsupportedPreset, UnsupportedOption.
    """
    architecture = get_architecture(name)
    size_px = architecture.preset.image_size_px if image_size_px is None else image_size_px
    architecture.check_size(size_px)
    return architecture.builder(
        NetworkRequest(
            num_categories=num_categories,
            image_size_px=size_px,
            auxiliary=auxiliary,
            options=architecture.complete_options(options),
        )
    )


def build_empty(
    name: str,
    *,
    num_categories: int,
    image_size_px: int | None = None,
    auxiliary: bool = False,
    options: Mapping[str, str] = NO_OPTIONS,
) -> nn.Module:
    """The network `name` with parameters on the meta device: they take no memory, and a state_dict replaces them."""
    with _EmptyWeights():
        return build(
            name, num_categories=num_categories, image_size_px=image_size_px, auxiliary=auxiliary, options=options
        )


def parameter_sizes(
    name: str, *, num_categories: int, image_size_px: int | None = None, options: Mapping[str, str] = NO_OPTIONS
) -> dict[str, int]:
    """Returns how many values each parameter of the network `name` has, by its state_dict key."""
    module = build_empty(name, num_categories=num_categories, image_size_px=image_size_px, options=options)
    return {key: parameter.numel() for key, parameter in module.named_parameters()}


def head_parameter_names(name: str, options: Mapping[str, str] = NO_OPTIONS) -> frozenset[str]:
    """State_dict keys of the last layer: the parameters whose shape depends on the number of categories."""
    two, three = (build_empty(name, num_categories=count, options=options).state_dict() for count in (2, 3))
    return frozenset(key for key, tensor in two.items() if tensor.shape != three[key].shape)


def layer_table(name: str) -> list[Layer]:
    """The layers of `name` as published, in order, without auxiliary heads."""
    module = build_empty(name, num_categories=len(get_architecture(name).categories))
    return [
        Layer(
            name=path,
            type=type(part).__name__,
            parameters=sum(parameter.numel() for parameter in part.parameters(recurse=False)),
        )
        for path, part in module.named_modules()
        if not any(True for _ in part.children()) or any(True for _ in part.parameters(recurse=False))
    ]


_RANDOM_FILLS: Final = {Tensor.normal_, Tensor.uniform_}
_OF_EACH_NUMBER: Final = {Tensor.mul, Tensor.__mul__, Tensor.__rmul__, torch.mul, torch.log}


class _EmptyWeights(TorchFunctionMode):
    """Creates parameters on the meta device, and skips drawing random numbers for them and computing with them.

    `torch.device("meta")` would also create them there. But RegNet computes its widths with tensors, and on the meta
    device even `10 * torch.ones(3)` is evaluated by torch._dynamo, which this avoids importing.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Tensor | Any:
        options = dict(kwargs or {})
        if func in _RANDOM_FILLS or getattr(func, "__module__", "") == nn.init.__name__:
            filled: Tensor = args[0] if args else options["tensor"]
            if filled.is_meta:
                return filled
        if func in _OF_EACH_NUMBER and [arg.is_meta for arg in args if isinstance(arg, Tensor)] == [True]:
            return next(arg for arg in args if isinstance(arg, Tensor))
        if func in (torch.empty, torch.zeros, torch.ones) and options.get("device") is None:
            options["device"] = "meta"
        return func(*args, **options)
