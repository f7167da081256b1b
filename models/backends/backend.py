"""The one interface of everything that runs a network."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from models.backends.names import BackendName
from models.precision import Precision

__all__ = ["Backend", "BackendName"]


class Backend(Protocol):
    """A network ready to run. May be called by several threads at once; calls may wait for each other."""

    @property
    def name(self) -> BackendName:
        """How it runs."""

    @property
    def precision(self) -> Precision:
        """What it computes in; results are float32 whatever it is."""

    @property
    def size_bytes(self) -> int:
        """Memory that its weights take on the device."""

    def run(self, batch: Tensor) -> Any:
        """What the graph of the network's task (models.backends.graphs) gives for a batch, uint8 [B, C, h, w].

        The batch comes on the CPU, and so go the results, except what a detector gives: that stays on the device.
        """
