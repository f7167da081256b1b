"""The choice of the serving device, and descriptions of all devices."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

from app.schemas.system import Device, Memory


def choose_device(wanted: str) -> torch.device:
    """`auto` is a GPU if there is one. Raises ValueError for a device that this machine does not have."""
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    device = torch.device(wanted)
    count = torch.cuda.device_count()
    is_there = {"cuda": (device.index or 0) < count, "mps": torch.backends.mps.is_available(), "cpu": True}
    if not is_there[device.type]:
        msg = f"FOVEA_DEVICE is {wanted!r}, and torch sees {count} CUDA device(s) here. Use 'auto' or 'cpu'."
        raise ValueError(msg)
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def half_of_memory(device: torch.device) -> int:
    """Half of the memory of the device, bytes; of the machine if the device does not report it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1] // 2
    return describe_memory().total_bytes // 2


def describe_devices() -> list[Device]:
    """Every device of this machine that torch can use. Reading the memory of a GPU blocks.

    A GPU that this process does not use is not read: that would allocate hundreds of megabytes on it.
    """
    memory = describe_memory()
    found = [
        Device(
            name="cpu",
            description=f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
            memory_total_bytes=memory.total_bytes,
            memory_free_bytes=memory.available_bytes,
        )
    ]
    for index in range(torch.cuda.device_count()):
        if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            found.append(Device(name=f"cuda:{index}", description="CUDA GPU, used by other processes if at all"))
            continue
        free_bytes, total_bytes = torch.cuda.mem_get_info(index)
        found.append(
            Device(
                name=f"cuda:{index}",
                description=torch.cuda.get_device_name(index),
                memory_total_bytes=total_bytes,
                memory_free_bytes=free_bytes,
            )
        )
    if torch.backends.mps.is_available():
        found.append(Device(name="mps", description="Apple GPU"))
    return found


def describe_memory() -> Memory:
    """Memory of the machine and of this process, as Linux reports it; on other systems only the total."""
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available_kib = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
        resident_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, StopIteration):
        return Memory(total_bytes=page_bytes * os.sysconf("SC_PHYS_PAGES"), available_bytes=None, process_bytes=None)
    return Memory(
        total_bytes=page_bytes * os.sysconf("SC_PHYS_PAGES"),
        available_bytes=available_kib * 1024,
        process_bytes=resident_pages * page_bytes,
    )
