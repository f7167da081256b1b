"""What makes backends that are built once and stored."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
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
from models.backends.views import LARGEST_BATCH, SMALLEST_PX, ViewSize
from models.errors import BackendUnavailable
from models.precision import Precision

_EXAMPLE_BATCH = 4


class Compiler(Protocol):
    """One way to make a network fast."""

    @property
    def name(self) -> BackendName:
        """What its backends are called."""

    @property
    def precisions(self) -> frozenset[Precision]:
        """What its networks can compute in."""

    @property
    def libraries(self) -> tuple[str, ...]:
        """Distributions, besides torch, whose version matters to what it makes."""

    def why_not(self, device: torch.device) -> str | None:
        """Why it cannot build or run here, found without trying; None: it can."""

    def build(
        self,
        eager: EagerBackend,
        size: ViewSize,
        directory: Path,
        *,
        precision: Precision,
        examples: Sequence[Tensor] = (),
    ) -> None:
        """Writes what `load` needs into `directory`, which is empty. eager: float32.

        examples: images as the network will see them, uint8 [C, h, w], from which its ranges are taken. Takes a
        while. The number of threads that PyTorch is set to is built in. Raises BackendError, or whatever the compiler
        breaks with.
        """

    def load(self, eager: EagerBackend, size: ViewSize, directory: Path, *, precision: Precision) -> Backend:
        """The network that was built into `directory`, for a process with as many threads. Raises BackendError."""


class CompiledNetwork(Protocol):
    """A part that was compiled. May be called by several threads at once."""

    @property
    def size_bytes(self) -> int:
        """Memory that its weights take."""

    def __call__(self, batch: Tensor) -> tuple[Tensor, ...]:
        """As the part's module. What it does with a batch of another size is not said."""


class CompiledBackend:
    """A graph whose networks were compiled. See Backend."""

    def __init__(
        self,
        eager: EagerBackend,
        size: ViewSize,
        networks: Mapping[str, CompiledNetwork],
        *,
        name: BackendName,
        precision: Precision,
    ) -> None:
        """eager: is not kept, but for what of a detector is no network. networks: by the names of `parts_of`."""
        self.name: BackendName = name
        self.precision: Precision = precision
        self._size = size
        self._device = eager.device
        self._networks = networks
        graph = eager.graph
        self._around = without_weights(_split(graph)) if isinstance(graph, DetectionGraph) else None

    @property
    def networks(self) -> Mapping[str, Network]:
        """By name."""
        return self._networks

    @property
    def size_bytes(self) -> int:
        """Memory that the weights take."""
        return sum(network.size_bytes for network in self._networks.values())

    @torch.inference_mode()
    def run(self, batch: Tensor) -> Any:
        """See Backend.run."""
        if not self._size.takes(batch):  # compiled code does not look: it would read what is not there
            msg = f"the network takes {self._size}, not {batch.dtype} {list(batch.shape)}"
            raise ValueError(msg)
        moved = batch.to(self._device)
        if self._around is not None:
            return self._around.detect(moved, self._networks)
        (output,) = self._networks["network"](moved)
        return output.cpu()


def parts_of(eager: EagerBackend, size: ViewSize) -> tuple[Part, ...]:
    """The networks of a graph, each to be compiled for itself. Raises BackendUnavailable."""
    graph = eager.graph
    if isinstance(graph, DetectionGraph):
        return _split(graph).parts(size)
    sides = [size.height or 7 * SMALLEST_PX, size.width or 9 * SMALLEST_PX]
    varies = tuple(at for at, side in ((2, size.height), (3, size.width)) if side is None)
    example = torch.zeros(_EXAMPLE_BATCH, size.channels, *sides, dtype=torch.uint8)
    return (Part(name="network", module=graph, example=example, most_rows=LARGEST_BATCH, varies=varies),)


def export(part: Part, precision: Precision, device: torch.device) -> ExportedProgram:
    """The part as operators alone.

    Raises what torch.export raises: a network that looks at values in Python cannot be exported.
    """
    module = part.module
    if precision != "float32":
        module = copy.deepcopy(module).to(getattr(torch, precision))
    sizes: dict[int, object] = {0: Dim("rows", min=1, max=part.most_rows), **dict.fromkeys(part.varies, Dim.DYNAMIC)}
    with torch.no_grad():
        return torch.export.export(module.eval(), (part.example.to(device),), dynamic_shapes=(sizes,))


def _split(graph: DetectionGraph) -> SplitDetector:
    if graph.split is None:
        raise BackendUnavailable("This detector runs whole: there is no network in it that can be compiled.")
    return graph.split
