"""One batch of views on its way through a network."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from app.engine.errors import OutOfDeviceMemory
from models.backends.backend import BackendName
from models.precision import Precision
from models.predictor import AnyPredictor, Selection


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchOutcome:
    """The outputs of a batch, and how they were computed."""

    outputs: list[Any]  # for each view an output or an exception
    backend: BackendName
    precision: Precision
    started_at: float
    elapsed_s: float


def run_batch(predictor: AnyPredictor, views: Sequence[Tensor], selections: Sequence[Selection[Any]]) -> BatchOutcome:
    """Runs the network on views of one size. Raises nothing: a view that fails does not fail the others."""
    backend = predictor.backend  # another thread may replace it during the batch
    started_at = time.perf_counter()
    outputs = _outputs(predictor, views, selections)
    return BatchOutcome(
        outputs=outputs,
        backend=backend.name,
        precision=backend.precision,
        started_at=started_at,
        elapsed_s=time.perf_counter() - started_at,
    )


def _outputs(predictor: AnyPredictor, views: Sequence[Tensor], selections: Sequence[Selection[Any]]) -> list[Any]:
    """An output or an exception for each view. A batch that does not fit into memory is halved, down to one view."""
    try:
        outputs = list(predictor.predict_prepared(stack(views), selections))
        assert len(outputs) == len(views), f"{len(outputs)} outputs for {len(views)} views"
        return outputs
    except Exception as error:
        if not is_out_of_memory(error):
            return [error] * len(views)
    if len(views) == 1:
        hint = "Send a smaller image, or try later."
        return [OutOfDeviceMemory("The image does not fit into the device's memory.", hint=hint)]
    middle = len(views) // 2
    first = _outputs(predictor, views[:middle], selections[:middle])
    return first + _outputs(predictor, views[middle:], selections[middle:])


def stack(views: Sequence[Tensor]) -> Tensor:
    """Views of one size as a batch, [B, C, h, w]. If some were decoded on the device, the others are moved there."""
    device = next((view.device for view in views if view.device.type != "cpu"), views[0].device)
    return torch.stack([view.to(device) for view in views])


def is_out_of_memory(error: Exception) -> bool:
    """Whether the device or the machine had no memory left. PyTorch has no exception class for the CPU's memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
