"""What a compiled network depends on besides its weights: processor, device, libraries and our own code."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from functools import cache
from pathlib import Path

import torch

from models.precision import FloatPrecision

# in the package `models`: the code that decides what a network computes
_CODE = ("architectures", "backends", "images/presets.py")
_PROCESSOR_LINES = ("model name", "flags", "Features", "CPU part")


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies matrices of bfloat16 in hardware, faster than of float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return bool({"amx_bf16", "avx512_bf16"} & _processor_flags())
    return False


def has_int8(device: torch.device) -> bool:
    """Whether the device multiplies matrices of 8-bit integers in hardware, faster than of bfloat16."""
    return device.type == "cpu" and bool({"avx512_vnni", "avx_vnni", "amx_int8"} & _processor_flags())


def best_precision(device: torch.device) -> FloatPrecision:
    """Returns bfloat16 if the device has it in hardware, else float32. Both differ by rounding only."""
    return "bfloat16" if has_bfloat16(device) else "float32"


def describe_machine(device: torch.device) -> dict[str, str]:
    """Describes the machine that code for `device` is compiled for. The features of the processor become a digest."""
    described = {
        "system": platform.system(),
        "processor": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "features": hashlib.sha256("\n".join(_processor()).encode()).hexdigest()[:16],
    }
    if device.type == "cuda":
        described["gpu"] = torch.cuda.get_device_name(device)
        described["cuda"] = str(torch.version.cuda)
    return described


def describe_libraries(*names: str) -> dict[str, str]:
    """Returns the version of each library, and a digest of the code that decides what a network computes."""
    found = {name: importlib.metadata.version(name) for name in ("torch", "torchvision", *names)}
    return {**found, "fovea": _digest_of_code()}


@cache
def _digest_of_code() -> str:
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for part in _CODE:
        path = root / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _processor_flags() -> set[str]:
    return {flag for line in _processor() for flag in line.partition(":")[2].split()}


@cache
def _processor() -> tuple[str, ...]:
    """Reads how Linux describes the first processor; returns nothing on other systems."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    first = text.partition("\n\n")[0]
    return tuple(line for line in first.splitlines() if line.startswith(_PROCESSOR_LINES))
