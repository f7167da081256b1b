"""Reads small JSON documents, and values that some tools write as numbers and others as text."""

from __future__ import annotations

import json
import math
from typing import Any

from workers.datasets.archives.archive import ArchivedFile

_HIGHEST = 1e9  # no image has so many pixels


class BadJsonFile(ValueError):
    """The file is too large, or it is not JSON; `str()` states the reason."""


def load_json(file: ArchivedFile, *, max_bytes: int) -> Any:
    """Returns the content of a JSON file. Raises BadJsonFile."""
    if file.size_bytes > max_bytes:
        raise BadJsonFile(f"it has {file.size_bytes:,} bytes, but it may have at most {max_bytes:,}")
    data = file.path.read_bytes()
    try:
        return json.loads(data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadJsonFile("it is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise BadJsonFile(f"line {error.lineno}: {error.msg[:1].lower()}{error.msg[1:]}") from error
    except RecursionError as error:
        raise BadJsonFile("lists or objects are nested too deep") from error
    except ValueError as error:  # a number with thousands of digits
        raise BadJsonFile(str(error)) from error


def number_of(value: Any) -> float | None:
    """Returns `value`, a number or the text of one, as a float; None if it is neither, or too large for a pixel."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and abs(number) <= _HIGHEST else None


def numbers_of(values: Any) -> list[float] | None:
    """Returns a list of numbers as floats, or None if `values` is no list or an item is no number."""
    if not isinstance(values, list):
        return None
    numbers = [number for value in values if (number := number_of(value)) is not None]
    return numbers if len(numbers) == len(values) else None


def size_of(width: Any, height: Any) -> tuple[int, int] | None:
    """Returns width and height in pixels, or None if the annotation does not state them."""
    sides = number_of(width), number_of(height)
    if sides[0] is None or sides[1] is None or min(sides[0], sides[1]) < 1:
        return None
    return round(sides[0]), round(sides[1])


def text_of(value: Any) -> str:
    """Returns text or a whole number as stripped text; anything else as an empty text."""
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _HIGHEST else ""
