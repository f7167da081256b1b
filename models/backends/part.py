"""What a compiler is given: a network with one tensor in and tensors out."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A network that `torch.export` takes. Most graphs are one; a detector has several, and code around them."""

    name: str
    module: nn.Module  # of one tensor; gives a tensor or a tuple
    example: Tensor  # of two rows or more: a dimension of 1 would be taken for fixed
    most_rows: int  # of the first dimension, which varies
    varies: tuple[int, ...] = ()  # other dimensions that do
