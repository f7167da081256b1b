"""What the figures were measured on: they mean little without it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

# Those that decide how fast a network can be on a CPU.
_TELLING_FLAGS: Final = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
)


def describe() -> list[str]:
    """Lines of Markdown: CPU, flags, cores, memory, versions."""
    flags = cpu_flags()
    there = [flag for flag in _TELLING_FLAGS if flag in flags]
    absent = [flag for flag in _TELLING_FLAGS if flag not in flags]
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    packages = ("torch", "torchvision", "fastapi", "uvicorn", "uvloop", "simplejpeg")
    return [
        f"- CPU: {_of_cpuinfo('model name')}, {cores()} cores; has {' '.join(there)}; has not {' '.join(absent)}",
        f"- memory: {memory_gib:.1f} GiB; Linux {platform.release()}; load before: {os.getloadavg()[0]:.2f}",
        f"- Python {platform.python_version()}, " + ", ".join(f"{name} {_version(name)}" for name in packages),
    ]


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def cpu_flags() -> set[str]:
    """As Linux names them."""
    return set(_of_cpuinfo("flags").split())


def has_fast_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 by itself; where it does not, torch's bfloat16 is slower than float32."""
    return bool({"amx_bf16", "avx512_bf16"} & cpu_flags())


def _of_cpuinfo(key: str) -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return "?"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "?"
