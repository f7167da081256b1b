"""One colour per category, the same in boxes, masks, maps and legends."""

from __future__ import annotations

import colorsys

Colour = tuple[int, int, int]  # RGB

BACKGROUND = frozenset({"background", "_background_", "__background__"})

# Colours that differ clearly from each other and from most photos; after Sasha Trubetskoy's list of 20 distinct colours
# (2017).
_FIRST: tuple[Colour, ...] = (
    (230, 25, 75),
    (0, 130, 200),
    (60, 180, 75),
    (255, 165, 0),
    (145, 30, 180),
    (70, 240, 240),
    (240, 50, 230),
    (255, 225, 25),
    (0, 128, 128),
    (170, 110, 40),
    (191, 239, 69),
    (128, 0, 0),
    (220, 190, 255),
    (0, 0, 160),
    (250, 190, 212),
    (128, 128, 0),
)
_GOLDEN = 0.618033988749895  # multiples of this share of a turn never come close to each other


def colour_of(index: int, label: str = "") -> Colour:
    """The colour of the category with that index; the background is black."""
    if label in BACKGROUND:
        return (0, 0, 0)
    if index < len(_FIRST):
        return _FIRST[index]
    turn = index * _GOLDEN % 1
    red, green, blue = colorsys.hsv_to_rgb(turn, (0.85, 0.55, 1.0)[index % 3], (0.95, 0.85, 0.6)[index // 3 % 3])
    return round(red * 255), round(green * 255), round(blue * 255)


def ink_on(colour: Colour) -> Colour:
    """Black or white, whichever reads better on `colour`. Source: WCAG 2.2, relative luminance and contrast ratio."""
    red, green, blue = (_linear(channel / 255) for channel in colour)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else float(((channel + 0.055) / 1.055) ** 2.4)
