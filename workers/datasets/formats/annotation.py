"""What a format says of one picture, as it stands in the archive: nothing here is checked against the picture yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from models.masks.coco_masks import Box, Polygon
from workers.datasets.archives.archive import ArchivedFile


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLengths:
    """A mask in COCO's form, packed or as numbers."""

    width: int
    height: int
    counts: str | tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class AnnotatedObject:
    """An object as written: a box, an outline or run lengths, in pixels or, if so said, in shares of the picture."""

    label: str
    where: str  # for people: `a.xml:12`
    box: Box | None = None  # None: the box of its outline or run lengths
    outline: tuple[Polygon, ...] | RunLengths | None = None
    is_crowd: bool = False
    is_difficult: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotation:
    """All that is said of a picture."""

    objects: Sequence[AnnotatedObject] = ()
    size: tuple[int, int] | None = None  # width and height as the annotation has them; None: it does not say
    is_relative: bool = False  # coordinates are shares of width and height
    mask: ArchivedFile | None = None  # a PNG of instances (then `labels` are theirs) or of categories
    labels: tuple[str, ...] = ()  # of instance 1, 2, …; too short: `default_label`
    default_label: str = "object"
