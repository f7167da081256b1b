"""The number of values in a JSON text, bounded before it is parsed: two bytes of text become hundreds in memory."""

from __future__ import annotations

from typing import Final

MARKS: Final = b",:[{"  # a value follows each of them, unless it is part of a string
_PIECE_BYTES: Final = 1024**2  # counted at once, while other threads wait


def has_more_marks(text: bytes, most: int, marks: bytes = MARKS) -> bool:
    """True if the text has more than `most` of these marks together."""
    found = 0
    for start in range(0, len(text), _PIECE_BYTES):
        found += sum(text.count(mark, start, start + _PIECE_BYTES) for mark in marks)
        if found > most:
            return True
    return False
