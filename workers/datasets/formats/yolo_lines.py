"""A line of a YOLO label file."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping

from workers.datasets.formats.annotation import AnnotatedObject

_LOWEST, _HIGHEST = -1.0, 2.0  # shares of the picture; beyond, they are pixels or nonsense


class BadLine(ValueError):
    """A line that describes no object; `code` is the finding's."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def read_line(line: str, *, where: str, labels: Mapping[int, str], has_keypoints: bool) -> AnnotatedObject:
    """The object of a line; boxes and outlines are shares of the picture.

    has_keypoints: behind the box come points, which are not read. Raises BadLine.
    """
    words = line.split()
    label = _label(words[0], labels)
    try:
        numbers = array("d", map(float, words[1:]))
    except ValueError as error:
        raise BadLine("bad_objects", f"not only numbers: {line.strip()[:40]!r}") from error
    if not all(map(math.isfinite, numbers)):
        raise BadLine("bad_objects", "values that are no finite numbers")
    if has_keypoints:
        numbers = numbers[:4]
    if numbers and not _LOWEST <= min(numbers) <= max(numbers) <= _HIGHEST:
        raise BadLine("bad_objects", "coordinates that are no shares of the picture between 0 and 1")
    if len(numbers) == 4:
        x, y, width, height = numbers
        box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return AnnotatedObject(label=label, where=where, box=box)
    if len(numbers) >= 6 and len(numbers) % 2 == 0:
        return AnnotatedObject(label=label, where=where, outline=(numbers,))
    raise BadLine("bad_objects", f"{len(numbers)} numbers behind the category: a box has 4, an outline 6 or more")


def _label(word: str, labels: Mapping[int, str]) -> str:
    try:
        number = int(float(word))  # some tools write 0.0
    except (ValueError, OverflowError) as error:
        raise BadLine("bad_objects", f"no category's number in front: {word[:20]!r}") from error
    if number not in labels:
        raise BadLine("unknown_categories", f"category {number} has no name")
    return labels[number]
