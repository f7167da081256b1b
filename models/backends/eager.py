"""PyTorch's own operators, one by one. They run every network everywhere; other backends are compared with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from models.backends.backend import BackendName
from models.backends.detection.parts import Network
from models.backends.graphs import DetectionGraph, Graph
from models.backends.views import ViewSize
from models.precision import Precision


class EagerBackend:
    """A network in evaluation mode, its weights in channels-last order."""

    name: BackendName = "eager"

    def __init__(self, graph: Graph, device: torch.device | str, precision: Precision = "float32") -> None:
        self.device = torch.device(device)
        self.precision: Precision = precision
        moved = graph.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.graph: Graph = moved.to(getattr(torch, precision)).eval().requires_grad_(False)

    @property
    def view_size(self) -> ViewSize:
        """The size of the views that the network takes."""
        return ViewSize.of(self.graph.preset)

    @property
    def size_bytes(self) -> int:
        """Memory of the parameters and buffers."""
        return sum(tensor.nbytes for tensor in (*self.graph.parameters(), *self.graph.buffers()))

    @property
    def networks(self) -> Mapping[str, Network]:
        """The networks of a detector that was taken apart."""
        assert isinstance(self.graph, DetectionGraph)
        assert self.graph.split is not None
        return self.graph.split.networks

    @torch.inference_mode()
    def run(self, batch: Tensor) -> Any:
        """See Backend.run."""
        outputs = self.graph(batch.to(self.device))
        return outputs if isinstance(self.graph, DetectionGraph) else outputs.cpu()  # waits for the device here
