"""How a detector that was taken apart is run: which networks it has, and what joins them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

Network = Callable[..., tuple[Tensor, ...]]  # the module of a part, or what a compiler made of it
Detections = list[dict[str, Tensor]]  # of each image, in torchvision's form


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A network with tensors in and tensors out, which `torch.export` takes."""

    name: str
    module: nn.Module
    examples: tuple[Tensor, ...]  # two rows: a dimension of 1 would be taken for fixed
    most_rows: int  # of the first dimension, the only one that varies


class SplitDetector(Protocol):
    """A detector's networks and what stands around them. May be called by several threads at once."""

    networks: Mapping[str, nn.Module]  # parts of `module`, on the same weights

    @property
    def module(self) -> nn.Module:
        """The whole, which can still be called as it was."""

    def parts(self, height: int, width: int) -> tuple[Part, ...]:
        """The networks for views of that size, px, each to be compiled for itself; those without a size come last."""

    def detect(self, batch: Tensor, networks: Mapping[str, Network]) -> Detections:
        """What torchvision's forward gives for a batch, uint8 [B, 3, h, w], with these networks for `networks`."""
