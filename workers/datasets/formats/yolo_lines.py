"""Parses one line of a YOLO label file."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping

from workers.datasets.formats.annotation import AnnotatedObject

_LOWEST, _HIGHEST = -1.0, 2.0  # fractions of the image; values outside are pixels or nonsense


class BadLine(ValueError):
    """A line that does not describe an object. `code` is the code of the finding, `str()` the reason."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def read_line(line: str, *, where: str, labels: Mapping[int, str], has_keypoints: bool) -> AnnotatedObject:
    """Returns the object of a line; its box or outline is in fractions of the width and height of the image.

    has_keypoints: points follow the box; they are not read. Raises BadLine.
    """
    words = line.split()
    label = _label(words[0], labels)
    try:
        numbers = array("d", map(float, words[1:]))
    except ValueError as error:
        raise BadLine("bad_objects", f"the line does not consist of numbers: {line.strip()[:40]!r}") from error
    if not all(map(math.isfinite, numbers)):
        raise BadLine("bad_objects", "a value is not a finite number")
    if has_keypoints:
        numbers = numbers[:4]
    if numbers and not _LOWEST <= min(numbers) <= max(numbers) <= _HIGHEST:
        raise BadLine("bad_objects", "a coordinate is not a fraction of the image between 0 and 1")
    if len(numbers) == 4:
        x, y, width, height = numbers
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return AnnotatedObject(label=label, where=where, box=box)
    if len(numbers) >= 6 and len(numbers) % 2 == 0:
        return AnnotatedObject(label=label, where=where, outline=(numbers,))
    raise BadLine(
        "bad_objects", f"{len(numbers)} numbers follow the category, but a box has 4 and an outline 6, 8, 10, …"
    )


def is_oriented_box(target: AnnotatedObject) -> bool:
    """Returns True if the line of `target` has four corners: an oriented box, or an outline that could be one."""
    return isinstance(target.outline, tuple) and len(target.outline) == 1 and len(target.outline[0]) == 8


def _label(word: str, labels: Mapping[int, str]) -> str:
    try:
        number = int(float(word))  # some tools write 0.0
    except (ValueError, OverflowError) as error:
        raise BadLine("bad_objects", f"the line does not begin with a category number: {word[:20]!r}") from error
    if number not in labels:
        raise BadLine("unknown_categories", f"category {number} has no name")
    return labels[number]
