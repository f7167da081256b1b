"""Reads the values of category masks, and writes the masks again with category indices instead of these values."""

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
from workers.datasets.validation.exif_orientation import pixels_to_upright
from workers.datasets.validation.inspection import ImageFacts
from workers.datasets.validation.targets import AnnotationProblem, annotation_orientation, size_mismatch

_VALUES = 2**16


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelMap:
    """A mask of the archive, and the values of its pixels."""

    file: ArchivedFile
    orientation: int  # EXIF orientation that turns the mask upright, like its image
    values: frozenset[int]


def read_label_map(mask: ArchivedFile, facts: ImageFacts) -> LabelMap | AnnotationProblem:
    """Reads the mask of an image. Returns the problem if the mask is broken or has another size."""
    try:
        values = read_index_png(mask.path.read_bytes())
    except BrokenIndexPng as error:
        return AnnotationProblem(code="broken_mask_file", reason=f"{mask.name}: {error}.")
    size = (values.shape[1], values.shape[0])
    orientation = annotation_orientation(size, facts)
    if orientation is None:
        return size_mismatch(size, facts)
    found = np.flatnonzero(np.bincount(values.ravel(), minlength=_VALUES))
    return LabelMap(file=mask, orientation=orientation, values=frozenset(found.tolist()))


def write_label_map(label_map: LabelMap, path: Path, values: Sequence[int]) -> str:
    """Writes a grey PNG whose pixels are indices into `values`, or 255 for other values.

    Returns the sha256 of the pixels. Raises OSError.
    """
    table = np.full(_VALUES, VOID, dtype=np.uint8)
    for index, value in enumerate(values):
        table[value] = index
    indices = pixels_to_upright(table[read_index_png(label_map.file.path.read_bytes())], label_map.orientation)
    Image.fromarray(indices).save(path, "PNG", compress_level=4)
    return hashlib.sha256(repr(indices.shape).encode() + indices.tobytes()).hexdigest()
