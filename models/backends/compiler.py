"""Compilers: they build a backend once, store it, and load it when a model is served."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from models.backends.backend import Backend, BackendName
from models.backends.detection.parts import Network, SplitDetector, without_weights
from models.backends.eager import EagerBackend
from models.backends.graphs import DetectionGraph
from models.backends.part import Part
from models.backends.views import LARGEST_BATCH, SMALLEST_PX
from models.errors import BackendUnavailable
from models.precision import Precision

_EXAMPLE_BATCH = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildRequest:
    """A network to compile or to load, and where the compiled network is stored."""

    eager: EagerBackend  # the network in float32
    directory: Path  # empty before `build`; holds what `build` wrote before `load`
    precision: Precision  # what the compiled network computes in
    examples: Sequence[Tensor] = ()  # views, uint8 [C, h, w]: int8 takes the ranges of values from them


class Compiler(Protocol):
    """One way to make a network fast."""

    @property
    def name(self) -> BackendName:
        """The name of its backends."""

    @property
    def precisions(self) -> frozenset[Precision]:
        """The precisions that its networks can compute in."""

    @property
    def libraries(self) -> tuple[str, ...]:
        """The distributions, besides torch, whose versions change what it builds."""

    def why_not(self, device: torch.device) -> str | None:
        """The reason why it cannot build or run on this machine, found without trying; None if it can."""

    def build(self, request: BuildRequest) -> None:
        """Writes what `load` needs into the directory. This may take minutes.

        The result is for processes with as many PyTorch threads as this one. Raises BackendError, and whatever the
        compiler raises.
        """

    def load(self, request: BuildRequest) -> Backend:
        """The network that was built into the directory, for a process with as many threads. Raises BackendError."""


class CompiledNetwork(Protocol):
    """A part that was compiled. Several threads may call it at once."""

    @property
    def size_bytes(self) -> int:
        """Memory that its weights take."""

    def __call__(self, batch: Tensor) -> tuple[Tensor, ...]:
        """The outputs of the part's module. The result is undefined for a batch of another size."""


class CompiledBackend:
    """A graph whose networks were compiled. See Backend."""

    def __init__(
        self,
        eager: EagerBackend,
        networks: Mapping[str, CompiledNetwork],
        *,
        name: BackendName,
        precision: Precision,
    ) -> None:
        """networks: by the names of `parts_of`. Keeps no weights of `eager`, only a detector's code around them."""
        self.name: BackendName = name
        self.precision: Precision = precision
        self._size = eager.view_size
        self._device = eager.device
        self._networks = networks
        graph = eager.graph
        self._around = without_weights(_split(graph)) if isinstance(graph, DetectionGraph) else None

    @property
    def networks(self) -> Mapping[str, Network]:
        """The compiled networks by name."""
        return self._networks

    @property
    def size_bytes(self) -> int:
        """Memory that the weights take."""
        return sum(network.size_bytes for network in self._networks.values())

    @torch.inference_mode()
    def run(self, batch: Tensor) -> Any:
        """See Backend.run."""
        if not self._size.takes(batch):  # compiled code does not check, and would read outside the batch
            msg = f"the network takes {self._size}, not {batch.dtype} {list(batch.shape)}"
            raise ValueError(msg)
        moved = batch.to(self._device)
        if self._around is not None:
            return self._around.detect(moved, self._networks)
        (output,) = self._networks["network"](moved)
        return output.cpu()


def parts_of(eager: EagerBackend) -> tuple[Part, ...]:
    """The networks of a graph; each is compiled separately. Raises BackendUnavailable."""
    graph, size = eager.graph, eager.view_size
    if isinstance(graph, DetectionGraph):
        return _split(graph).parts()
    sides = [size.height or 7 * SMALLEST_PX, size.width or 9 * SMALLEST_PX]
    varies = tuple(at for at, side in ((2, size.height), (3, size.width)) if side is None)
    example = torch.zeros(_EXAMPLE_BATCH, size.channels, *sides, dtype=torch.uint8)
    return (Part(name="network", module=graph, example=example, most_rows=LARGEST_BATCH, varies=varies),)


def export(part: Part, precision: Precision, device: torch.device) -> ExportedProgram:
    """The part as a program of PyTorch operators.

    Raises what torch.export raises: a network whose Python code depends on values cannot be exported.
    """
    module = part.module
    if precision != "float32":
        module = copy.deepcopy(module).to(getattr(torch, precision))
    sizes: dict[int, object] = {0: Dim("rows", min=1, max=part.most_rows), **dict.fromkeys(part.varies, Dim.DYNAMIC)}
    with torch.no_grad():
        return torch.export.export(module.eval(), (part.example.to(device),), dynamic_shapes=(sizes,))


def _split(graph: DetectionGraph) -> SplitDetector:
    if graph.split is None:
        raise BackendUnavailable("This detector cannot be taken apart: it has no network that can be compiled.")
    return graph.split
