"""A network for a compiler, with one tensor as input and tensors as outputs."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A network that `torch.export` takes. Most graphs are one part; a detector has several, with code around them."""

    name: str
    module: nn.Module  # takes one tensor; returns a tensor or a tuple
    example: Tensor  # an input with two rows or more: torch.export takes a dimension of 1 for fixed
    most_rows: int  # the largest first dimension, which varies
    varies: tuple[int, ...] = ()  # other dimensions that vary
