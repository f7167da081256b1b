"""What every peer is told by the environment. Needs no torch: the benchmark's own process writes it."""

from __future__ import annotations

from typing import Final

ARCHITECTURE: Final = "BENCH_ARCHITECTURE"
WEIGHTS: Final = "BENCH_WEIGHTS"  # safetensors
CATEGORIES: Final = "BENCH_CATEGORIES"
BACKEND: Final = "BENCH_BACKEND"  # of the tuned ones
PICTURES: Final = "BENCH_PICTURES"  # a directory of JPEGs
PROCESSES: Final = "BENCH_PROCESSES"  # that predict, each with one thread, where it is tuned


def environment(
    architecture: str, weights: object, pictures: object, *, categories: int, backend: str, processes: int
) -> dict[str, str]:
    """The variables of one peer."""
    return {
        ARCHITECTURE: architecture,
        WEIGHTS: str(weights),
        PICTURES: str(pictures),
        CATEGORIES: str(categories),
        BACKEND: backend,
        PROCESSES: str(processes),
    }
