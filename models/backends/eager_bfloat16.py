"""PyTorch's own operators in bfloat16. Nothing is compiled, but the result is verified like that of a compiler."""

from __future__ import annotations

import copy

import torch

from models.backends.backend import BackendName
from models.backends.compiler import BuildRequest
from models.backends.eager import EagerBackend
from models.backends.machine import has_bfloat16
from models.precision import Precision


class EagerBfloat16:
    """Converts a copy of the network to bfloat16, which takes half the memory."""

    name: BackendName = "eager"
    precisions: frozenset[Precision] = frozenset({"bfloat16"})
    libraries: tuple[str, ...] = ()

    def why_not(self, device: torch.device) -> str | None:
        """See Compiler.why_not."""
        return None if has_bfloat16(device) else f"{device} has no bfloat16 in hardware"

    def build(self, request: BuildRequest) -> None:
        """Writes nothing: the weights are converted when they are loaded."""

    def load(self, request: BuildRequest) -> EagerBackend:
        """See Compiler.load."""
        return EagerBackend(copy.deepcopy(request.eager.graph), request.eager.device, request.precision)
