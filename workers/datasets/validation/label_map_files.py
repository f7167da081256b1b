"""Masks of categories: looked at once for their values, then written again with indices in their place."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.dataset import VOID
from workers.datasets.formats.index_png import BrokenIndexPng, read_index_png
from workers.datasets.validation.exif_orientation import turned_pixels
from workers.datasets.validation.inspection import ImageFacts
from workers.datasets.validation.targets import TargetProblem, size_mismatch, written_orientation

_VALUES = 2**16


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelMap:
    """A mask in the archive, and what is in it."""

    file: ArchivedFile
    orientation: int  # EXIF's: how to turn it to lie on the upright picture
    values: frozenset[int]


def look_at(mask: ArchivedFile, facts: ImageFacts) -> LabelMap | TargetProblem:
    """What is in the mask of a picture."""
    try:
        values = read_index_png(mask.path.read_bytes())
    except BrokenIndexPng as error:
        return TargetProblem(code="broken_mask_file", reason=f"{mask.name}: {error}.")
    size = (values.shape[1], values.shape[0])
    orientation = written_orientation(size, facts)
    if orientation is None:
        return size_mismatch(size, facts)
    found = np.flatnonzero(np.bincount(values.ravel(), minlength=_VALUES))
    return LabelMap(file=mask, orientation=orientation, values=frozenset(found.tolist()))


def write_label_map(label_map: LabelMap, path: Path, values: Sequence[int]) -> str:
    """Writes a grey PNG of indices into `values`, 255 for what is not among them; returns the sha256 of its pixels.

    Raises OSError.
    """
    table = np.full(_VALUES, VOID, dtype=np.uint8)
    for index, value in enumerate(values):
        table[value] = index
    indices = turned_pixels(table[read_index_png(label_map.file.path.read_bytes())], label_map.orientation)
    Image.fromarray(indices).save(path, "PNG", compress_level=4)
    return hashlib.sha256(repr(indices.shape).encode() + indices.tobytes()).hexdigest()
