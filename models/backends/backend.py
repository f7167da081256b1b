"""The interface of everything that runs a network."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from models.backends.names import BackendName
from models.precision import Precision

__all__ = ["Backend", "BackendName"]


class Backend(Protocol):
    """A network that is ready to run. Several threads may call it at once; calls may wait for each other."""

    @property
    def name(self) -> BackendName:
        """The kind of backend."""

    @property
    def precision(self) -> Precision:
        """The precision of its computation. Results are always float32."""

    @property
    def size_bytes(self) -> int:
        """Memory of its weights on the device."""

    def run(self, batch: Tensor) -> Any:
        """Runs the graph of the network's task (models.backends.graphs) on a batch, uint8 [B, C, h, w] on the CPU.

        Results are on the CPU, except those of a detector, which stay on the device.
        """
