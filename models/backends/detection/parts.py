"""How a detector that was taken apart is run: which networks it has, and what joins them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor, nn

from models.backends.part import Part

Network = Callable[[Tensor], tuple[Tensor, ...]]  # the module of a part, or what a compiler made of it
Detections = list[dict[str, Tensor]]  # of each image, in torchvision's form


class SplitDetector(Protocol):
    """A detector's networks and what stands around them. May be called by several threads at once."""

    networks: Mapping[str, nn.Module]  # parts of `module`, on the same weights

    @property
    def module(self) -> nn.Module:
        """The whole, which can still be called as it was."""

    def parts(self) -> tuple[Part, ...]:
        """The networks; each is compiled separately."""

    def detect(self, batch: Tensor, networks: Mapping[str, Network]) -> Detections:
        """What torchvision's forward gives for a batch, uint8 [B, 3, h, w], with these networks for `networks`."""


def without_weights(detector: SplitDetector) -> SplitDetector:
    """What stands around the networks, for those who have others: the weights of its own take no memory."""
    networks = detector.networks.values()
    tensors = [tensor for network in networks for tensor in (*network.parameters(), *network.buffers())]
    module = copy.deepcopy(detector.module, {id(tensor): tensor.detach().to("meta") for tensor in tensors})
    make: Callable[[nn.Module], SplitDetector] = type(detector)
    return make(module)


def run_rows(network: Network, rows: Tensor) -> tuple[Tensor, ...]:
    """What `network` gives for any number of rows, none too: compiled networks need one."""
    if len(rows):
        return network(rows)
    return tuple(answer[:0] for answer in network(rows.new_zeros(1, *rows.shape[1:])))
