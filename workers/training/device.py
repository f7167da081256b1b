"""The device and the precision that a run computes in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from models.backends.machine import best_precision
from models.precision import FloatPrecision, JobPrecision


def pick_device(wanted: str) -> torch.device:
    """Returns the device `wanted`; `auto` is the GPU if there is one. Raises RuntimeError for a missing device."""
    if wanted != "auto":
        return torch.device(wanted)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def pick_precision(wanted: JobPrecision, device: torch.device) -> FloatPrecision:
    """Returns the precision to compute in; `auto` is bfloat16 if the device has it in hardware, else float32."""
    return best_precision(device) if wanted == "auto" else wanted


def autocast(device: torch.device, precision: FloatPrecision) -> AbstractContextManager[object]:
    """Runs matrix products and convolutions in `precision`; sums and losses stay in float32."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def describe_device(device: torch.device) -> str:
    """Describes the device for the manifest: `cuda (NVIDIA H200)`, `cpu`."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return device.type
