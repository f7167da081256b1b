"""Predictions for an image, in plain Python values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassScore:
    """One category and its probability."""

    label: str
    index: int
    score: float  # probability in [0, 1]; the scores of all categories of an image sum to 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A rectangle, in pixels of the original image after its EXIF orientation was applied."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Keypoint:
    """A named point on an object, in pixels of the original image."""

    label: str
    x: float
    y: float
    score: float  # a logit from torchvision, not a probability: a larger score is more certain


@dataclass(frozen=True, kw_only=True, slots=True)
class Detection:
    """One object."""

    label: str
    index: int  # 1 is the first category; 0 is the background
    score: float  # probability in [0, 1]
    box: Box
    mask: RunLengths | None = None
    polygons: tuple[tuple[float, ...], ...] = ()  # outlines of the mask as x, y, x, y, …, if the request asks for them
    keypoints: tuple[Keypoint, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLengths:
    """A binary mask in COCO's compressed run-length encoding, column by column."""

    height: int
    width: int
    counts: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """All pixels of an image that belong to one category."""

    label: str
    index: int
    share: float  # of the image's pixels, in (0, 1]
    mask: RunLengths | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Segmentation:
    """The category of every pixel of an image."""

    segments: tuple[Segment, ...]  # the largest first
    map_png: bytes | None = None  # an indexed PNG of the image's size, 255 for none, if the request asks for it
