"""What models say of an image, in plain Python values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassScore:
    """One category and how probable the model holds it to be."""

    label: str
    index: int
    score: float  # probability in [0, 1]; the scores of all categories of an image sum to 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """Edges of a rectangle, in pixels of the original image after its EXIF orientation."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Keypoint:
    """A point of an object, in pixels of the original image."""

    label: str
    x: float
    y: float
    score: float  # the larger the surer; torchvision's, not a probability


@dataclass(frozen=True, kw_only=True, slots=True)
class Detection:
    """One object."""

    label: str
    index: int  # 1 is the first category; 0 is the background
    score: float  # probability in [0, 1]
    box: Box
    mask: RunLengths | None = None
    polygons: tuple[tuple[float, ...], ...] = ()  # of the mask where they were asked for: x, y, x, y, …
    keypoints: tuple[Keypoint, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLengths:
    """A binary mask in COCO's compressed run-length encoding, column by column."""

    height: int
    width: int
    counts: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """All of an image that belongs to one category."""

    label: str
    index: int
    share: float  # of the image's pixels, in (0, 1]
    mask: RunLengths | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Segmentation:
    """Which category every pixel of an image belongs to."""

    segments: tuple[Segment, ...]  # the largest first
    map_png: bytes | None = None  # where it was asked for: an indexed PNG of the image's size, 255 for none
