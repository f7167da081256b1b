"""Lets two calls of a detector share one pass through its backbone, neck and dense heads.

A batch of the validation split is needed twice: the loss comes from the network in training mode, the detections from
the same network in evaluation mode. Batch normalization and dropout are in evaluation mode both times, so these parts
would compute the same answer again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_SHARED = ("backbone", "neck", "heads", "head", "rpn.head")  # if the network has them; each reads only its input


@contextmanager
def shared_pass(module: nn.Module) -> Iterator[None]:
    """Within the block, a shared part that gets the input of its last call answers what it answered then.

    Nobody may change the weights, or an answer, within the block.
    """
    parts = [part for name in _SHARED if (part := _find(module, name)) is not None]
    modules = [one for part in parts for one in (part if isinstance(part, nn.ModuleList) else [part])]
    plain = [one.forward for one in modules]
    for one in modules:
        one.forward = _Remembering(one.forward)
    try:
        yield
    finally:
        for one, forward in zip(modules, plain, strict=True):
            one.forward = forward


def _find(module: nn.Module, path: str) -> nn.Module | None:
    found: Any = module
    for name in path.split("."):
        found = getattr(found, name, None)
    return found if isinstance(found, nn.Module) else None


class _Remembering:
    """The forward of a part, which remembers its last call."""

    def __init__(self, forward: Any) -> None:
        self._forward = forward
        self._inputs: list[Tensor] = []
        self._answer: Any = None

    def __call__(self, *arguments: Any) -> Any:
        inputs = list(_tensors(arguments))
        if not self._inputs or not _are_equal(inputs, self._inputs):
            self._answer = self._forward(*arguments)
            self._inputs = inputs
        return self._answer


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)


def _are_equal(some: list[Tensor], others: list[Tensor]) -> bool:
    """Compares the values only where the tensors are not the same ones: the images are normalised for each call."""
    return len(some) == len(others) and all(
        one is other or (one.dtype == other.dtype and torch.equal(one, other))
        for one, other in zip(some, others, strict=True)
    )
