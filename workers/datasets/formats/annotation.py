"""The annotation of one image as the archive states it. Nothing here has been checked against the image yet."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from models.masks.coco_masks import Box, Polygon
from workers.datasets.archives.archive import ArchivedFile
from workers.datasets.formats.index_image import Indices, read_index_image


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLengths:
    """A mask as COCO's run lengths."""

    width: int
    height: int
    counts: str | tuple[int, ...]  # compressed text, or the numbers themselves


@dataclass(frozen=True, kw_only=True, slots=True)
class Mask:
    """A mask of the archive, which is read when it is needed."""

    name: str  # of its file, for messages
    read: Callable[[], Indices]  # uint16 [H, W] in stored pixels; raises BrokenIndexImage


def index_mask(file: ArchivedFile) -> Mask:
    """Returns the mask of an image file whose pixels are numbers."""
    return Mask(name=file.name, read=lambda: read_index_image(file.path.read_bytes()))


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatedObject:
    """One object as the archive states it; `Annotation.is_relative` tells the unit of its coordinates."""

    label: str
    where: str  # its file and line, for messages: `a.xml:12`
    box: Box | None = None  # None: derived from the outline or the run lengths
    outline: tuple[Polygon, ...] | RunLengths | None = None  # (): the archive states one that cannot be used
    is_crowd: bool = False
    is_difficult: bool = False
    area: float | None = None  # px^2; None: not stated


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotation:
    """All that the archive states about one image."""

    objects: Sequence[AnnotatedObject] = ()
    size: tuple[int, int] | None = None  # width and height that the annotation states, or None
    is_relative: bool = False  # True: coordinates are fractions of width and height; False: pixels
    mask: Mask | None = None  # the number of an instance or of a category at every pixel
    labels: tuple[str, ...] = ()  # labels of instance 1, 2, …; `default_label` for the instances after them
    default_label: str = "object"
    unusable_objects: int = 0  # objects that could not be read; the image is left out, or they would be background


def clean_label(text: str) -> str:
    """Returns a label with single spaces and in composed Unicode (NFC), so that equal labels compare equal."""
    return unicodedata.normalize("NFC", " ".join(text.split()))
