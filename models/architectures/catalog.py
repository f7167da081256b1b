"""Every network Fovea can train and serve, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models.architectures import torchvision_classification, torchvision_detection, torchvision_segmentation
from models.architectures.architecture import Architecture
from models.architectures.fast_rcnn import NAME as FAST_RCNN
from models.architectures.fast_rcnn import fast_rcnn
from models.architectures.garment_classifier import NAME as GARMENT_CLASSIFIER
from models.architectures.garment_classifier import garment_classifier
from models.architectures.rcnn import NAME as RCNN
from models.architectures.rcnn import rcnn
from models.architectures.segnet import NAME as SEGNET
from models.architectures.segnet import segnet
from models.architectures.yolo import NAME as YOLO
from models.architectures.yolo import yolo
from models.errors import UnknownArchitecture
from models.manifest import Task

NO_OPTIONS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """A module that holds parameters itself, or has no parts."""

    name: str
    type: str
    parameters: int


def names(task: Task | None = None) -> list[str]:
    """Catalogue names, sorted; those that can do `task`. Builds nothing."""
    return sorted(name for of_task, entries in _by_task().items() if task in (None, of_task) for name in entries)


def get_architecture(name: str) -> Architecture:
    """What the catalogue knows of `name`. Builds nothing.

    Raises UnknownArchitecture.
    """
    describe = next((entries[name] for entries in _by_task().values() if name in entries), None)
    if describe is None:
        shown = name if len(name) <= 64 else name[:64] + "…"
        raise UnknownArchitecture(f"There is no architecture {shown!r}.", hint=_hint(name, names()))
    return describe(name)


@cache
def _by_task() -> Mapping[Task, Mapping[str, Callable[[str], Architecture]]]:
    """What describes each name, by the task it is listed under."""
    return {
        "classification": {
            **dict.fromkeys(torchvision_classification.names(), torchvision_classification.torchvision_classification),
            GARMENT_CLASSIFIER: lambda _: garment_classifier(),
        },
        "detection": {
            **dict.fromkeys(torchvision_detection.names(), torchvision_detection.torchvision_detection),
            FAST_RCNN: lambda _: fast_rcnn(),
            RCNN: lambda _: rcnn(),
            YOLO: lambda _: yolo(),
        },
        "segmentation": {
            **dict.fromkeys(torchvision_segmentation.names(), torchvision_segmentation.torchvision_segmentation),
            SEGNET: lambda _: segnet(),
        },
    }


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
    """`name` with fresh random weights, in training mode, on the CPU, for images of that side (None: its preset's).

    num_categories: of a detector those of objects; the background, where it needs one, is added.
    Classification logits are [B, num_categories]; with `auxiliary`, GoogLeNet and Inception v3 (from 299 px) add those
    of auxiliary heads in training mode, see `split_outputs`; segmentation networks add `aux` to their dict.
    Detectors have torchvision's interface: images and targets in, losses or detections out.
    The weights come from torch's global generator.
    options: those left out have their defaults. Raises UnknownArchitecture, UnsupportedPreset, UnsupportedOption.
    """
    architecture = get_architecture(name)
    size_px = architecture.preset.image_size_px if image_size_px is None else image_size_px
    architecture.check_size(size_px)
    return architecture.builder(
        num_categories=num_categories,
        image_size_px=size_px,
        auxiliary=auxiliary,
        options=architecture.complete_options(options),
    )


def build_empty(
    name: str,
    *,
    num_categories: int,
    image_size_px: int | None = None,
    auxiliary: bool = False,
    options: Mapping[str, str] = NO_OPTIONS,
) -> nn.Module:
    """`name` with parameters on the meta device: shapes without memory or time, to load a state_dict into."""
    with _EmptyWeights():
        return build(
            name, num_categories=num_categories, image_size_px=image_size_px, auxiliary=auxiliary, options=options
        )


def head_parameter_names(name: str, options: Mapping[str, str] = NO_OPTIONS) -> frozenset[str]:
    """State_dict keys of the last layer: those whose shape depends on the number of categories."""
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
    """Makes parameters on the meta device, neither draws numbers for them nor computes with them.

    `torch.device("meta")` makes them there too, but RegNet computes widths with tensors. On that device PyTorch works
    results out in Python, by half of its compiler, were it 10 times ones.
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
