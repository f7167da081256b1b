"""PyTorch's own operators in bfloat16: nothing is compiled, but it is checked like everything that is not float32."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from models.backends.backend import BackendName
from models.backends.eager import EagerBackend
from models.backends.machine import has_bfloat16
from models.backends.views import ViewSize
from models.precision import Precision


class EagerBfloat16:
    """A copy of the network in half the memory."""

    name: BackendName = "eager"
    precisions: frozenset[Precision] = frozenset({"bfloat16"})
    libraries: tuple[str, ...] = ()

    def why_not(self, device: torch.device) -> str | None:
        """See Compiler.why_not."""
        return None if has_bfloat16(device) else f"{device} has no bfloat16 in hardware"

    def build(
        self,
        eager: EagerBackend,
        size: ViewSize,
        directory: Path,
        *,
        precision: Precision,
        examples: Sequence[Tensor] = (),
    ) -> None:
        """There is nothing to write."""

    def load(self, eager: EagerBackend, size: ViewSize, directory: Path, *, precision: Precision) -> EagerBackend:  # noqa: ARG002
        """See Compiler.load."""
        return EagerBackend(copy.deepcopy(eager.graph), eager.device, precision)
