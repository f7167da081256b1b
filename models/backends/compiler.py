"""What makes backends that are built once and stored."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Protocol

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from models.backends.backend import Backend, BackendName, Precision
from models.backends.eager import EagerBackend
from models.backends.views import LARGEST_BATCH, SMALLEST_PX, ViewSize

_EXAMPLE_BATCH = 4


class Compiler(Protocol):
    """One way to make a network fast."""

    @property
    def name(self) -> BackendName:
        """What its backends are called."""

    @property
    def libraries(self) -> tuple[str, ...]:
        """Distributions, besides torch, whose version matters to what it makes."""

    def why_not(self, device: torch.device, precision: Precision) -> str | None:
        """Why it cannot build or run here, found without trying; None: it can."""

    def build(self, eager: EagerBackend, size: ViewSize, directory: Path, *, precision: Precision) -> None:
        """Writes what `load` needs into `directory`, which is empty. eager: float32.

        Takes a while. The number of threads that PyTorch is set to is built in. Raises BackendError, or whatever the
        compiler breaks with.
        """

    def load(self, eager: EagerBackend, size: ViewSize, directory: Path, *, precision: Precision) -> Backend:
        """The network that was built into `directory`, for a process with as many threads. Raises BackendError."""


def export(eager: EagerBackend, size: ViewSize, precision: Precision) -> ExportedProgram:
    """The network as operators alone; the batch varies, and height and width where they do.

    Raises what torch.export raises: a network that looks at values in Python cannot be exported.
    """
    graph: nn.Module = eager.graph
    if precision != "float32":
        graph = copy.deepcopy(graph).to(getattr(torch, precision))
    sides = [size.height or 7 * SMALLEST_PX, size.width or 9 * SMALLEST_PX]
    example = torch.zeros(_EXAMPLE_BATCH, size.channels, *sides, dtype=torch.uint8, device=eager.device)
    dynamic: dict[int, object] = {0: Dim("batch", min=1, max=LARGEST_BATCH)}
    if size.height is None:
        dynamic[2] = Dim.DYNAMIC
    if size.width is None:
        dynamic[3] = Dim.DYNAMIC
    with torch.no_grad():
        return torch.export.export(graph, (example,), dynamic_shapes=(dynamic,))
