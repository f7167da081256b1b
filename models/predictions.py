"""What models say of a picture, in plain Python values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassScore:
    """One category and how probable the model holds it to be."""

    label: str
    index: int
    score: float  # probability in [0, 1]; the scores of all categories of a picture sum to 1
