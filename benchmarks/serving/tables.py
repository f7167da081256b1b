"""Markdown, and how a number of several rounds is written."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints it with an empty line after it."""
    print(f"| {' | '.join(headers)} |")
    print(f"|{'---|' * len(headers)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)
    print(flush=True)


def spread(values: Sequence[float], digits: int = 1) -> str:
    """The median with the least and the most, or the one value; a dash of none."""
    numbers = [value for value in values if not math.isnan(value)]
    if not numbers:
        return "-"
    median = f"{statistics.median(numbers):.{digits}f}"
    return median if len(numbers) == 1 else f"{median} ({min(numbers):.{digits}f}-{max(numbers):.{digits}f})"


def median(values: Sequence[float]) -> float:
    """NaN of none."""
    numbers = [value for value in values if not math.isnan(value)]
    return statistics.median(numbers) if numbers else math.nan
