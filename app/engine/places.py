"""How many of the places for images that wait each kind of request may take."""

from __future__ import annotations

from typing import Final

_BULK_SHARE: Final = 0.75  # the rest is kept for those who wait for their answer


def bulk_places(most: int) -> int:
    """Of `most` places, those that bulk requests may take."""
    return max(1, int(most * _BULK_SHARE))
