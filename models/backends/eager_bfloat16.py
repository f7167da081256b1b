"""PyTorch's own operators in bfloat16: nothing is compiled, but it is checked like everything that is not float32."""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from models.backends.backend import BackendName, Precision
from models.backends.eager import EagerBackend
from models.backends.machine import has_bfloat16
from models.backends.views import ViewSize


class EagerBfloat16:
    """A copy of the network in half the memory."""

    name: BackendName = "eager"
    libraries: tuple[str, ...] = ()

    def why_not(self, device: torch.device, precision: Precision) -> str | None:
        """See Compiler.why_not."""
        if precision == "float32":
            return "eager float32 needs no building"
        return None if has_bfloat16(device) else f"{device} has no bfloat16 in hardware"

    def build(self, eager: EagerBackend, size: ViewSize, directory: Path, *, precision: Precision) -> None:
        """There is nothing to write."""

    def load(self, eager: EagerBackend, size: ViewSize, directory: Path, *, precision: Precision) -> EagerBackend:  # noqa: ARG002
        """See Compiler.load."""
        return EagerBackend(copy.deepcopy(eager.graph), eager.device, precision)
