"""How much a JSON text may hold, told before it is parsed: of two bytes of text hundreds are made."""

from __future__ import annotations

from typing import Final

MARKS: Final = b",:[{"  # behind each of them is a value, but for those that stand in a string
_PIECE_BYTES: Final = 1024**2  # counted without a break for other threads


def has_more_marks(text: bytes, most: int, marks: bytes = MARKS) -> bool:
    """Whether these marks together are more than `most` in the text."""
    found = 0
    for start in range(0, len(text), _PIECE_BYTES):
        found += sum(text.count(mark, start, start + _PIECE_BYTES) for mark in marks)
        if found > most:
            return True
    return False
