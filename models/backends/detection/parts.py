"""The interface of a detector that was taken apart: its networks, and the code that joins them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor, nn

from models.backends.part import Part

Network = Callable[[Tensor], tuple[Tensor, ...]]  # the module of a part, or its compiled form
Detections = list[dict[str, Tensor]]  # one dict per image, in torchvision's form


class SplitDetector(Protocol):
    """A detector's networks and the code around them. Several threads may call it at once."""

    networks: Mapping[str, nn.Module]  # parts of `module`, on the same weights

    @property
    def module(self) -> nn.Module:
        """The whole detector, which can still be called."""

    def parts(self) -> tuple[Part, ...]:
        """The networks; each is compiled separately."""

    def detect(self, batch: Tensor, networks: Mapping[str, Network]) -> Detections:
        """Returns what torchvision's forward returns for a batch, uint8 [B, 3, h, w], but runs these networks."""


def without_weights(detector: SplitDetector) -> SplitDetector:
    """Returns a copy for use with other networks: its own have no weights in memory."""
    networks = detector.networks.values()
    tensors = [tensor for network in networks for tensor in (*network.parameters(), *network.buffers())]
    module = copy.deepcopy(detector.module, {id(tensor): tensor.detach().to("meta") for tensor in tensors})
    make: Callable[[nn.Module], SplitDetector] = type(detector)
    return make(module)


def run_rows(network: Network, rows: Tensor) -> tuple[Tensor, ...]:
    """Runs `network` on any number of rows. For none it runs one row, which compiled networks need."""
    if len(rows):
        return network(rows)
    return tuple(answer[:0] for answer in network(rows.new_zeros(1, *rows.shape[1:])))
