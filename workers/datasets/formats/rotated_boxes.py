"""Upright boxes around rotated ones: a detector here has no angle."""

from __future__ import annotations

import math
from collections.abc import Sequence

from models.masks.coco_masks import Box

Point = tuple[float, float]


def box_around(corners: Sequence[Point]) -> Box:
    """Returns x_min, y_min, x_max, y_max of `corners`."""
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    return min(xs), min(ys), max(xs), max(ys)


def rotated_corners(box: Box, degrees: float, about: Point) -> list[Point]:
    """Returns the four corners of `box` after a clockwise turn (y points down) about a point."""
    angle = math.radians(degrees)
    sine, cosine = math.sin(angle), math.cos(angle)
    x_min, y_min, x_max, y_max = box
    return [
        (
            about[0] + (x - about[0]) * cosine - (y - about[1]) * sine,
            about[1] + (x - about[0]) * sine + (y - about[1]) * cosine,
        )
        for x, y in ((x_min, y_min), (x_max, y_min), (x_max, y_max), (x_min, y_max))
    ]


def ellipse_outline(centre: Point, radius_x: float, radius_y: float, *, corners: int = 32) -> list[float]:
    """Returns the outline x, y, x, y, … of an ellipse, as a polygon."""
    turns = (2 * math.pi * step / corners for step in range(corners))
    return [
        value
        for turn in turns
        for value in (centre[0] + radius_x * math.cos(turn), centre[1] + radius_y * math.sin(turn))
    ]
