"""Places labels on a picture: beside their boxes, inside the picture, without overlaps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from models.drawing.colours import Colour, ink_on
from models.drawing.fonts import Fonts

_SMALLEST_LETTERS_PX = 11
_Rectangle = tuple[int, int, int, int]  # left, top, right, bottom; px


@dataclass(frozen=True, kw_only=True, slots=True)
class Tag:
    """A label for a box."""

    text: str
    colour: Colour
    box: _Rectangle


def letters_px(width: int, height: int) -> int:
    """The size of letters on an image of that size, px: 11 at 300 x 300, 23 at 1000, 140 at 6000."""
    return max(_SMALLEST_LETTERS_PX, min(round(math.sqrt(width * height) / 43), min(width, height) // 8))


def place_tags(picture: Image.Image, tags: Sequence[Tag], fonts: Fonts, *, line_px: int) -> None:
    """Writes the tags on `picture`, the most important first. Leaves out a tag that has no free place."""
    letters = fonts.letters(letters_px(picture.width, picture.height))
    draw = ImageDraw.Draw(picture)
    taken: list[_Rectangle] = []
    pad = max(2, line_px)
    height = letters.line_px + pad // 2
    for tag in tags:
        text = letters.shortened(tag.text, picture.width - 2 * pad)
        width = round(letters.width(text)) + 2 * pad
        places = _places(tag.box, width, height, picture.size)
        place = next((place for place in places if not any(_overlap(place, other) for other in taken)), None)
        if place is None or not text:
            continue
        taken.append(place)
        left, top, right, bottom = place
        draw.rectangle((left, top, right - 1, bottom - 1), fill=tag.colour)
        letters.write(draw, (left + pad, (top + bottom - letters.height_px) / 2), text, ink_on(tag.colour))


def draw_legend(picture: Image.Image, entries: Sequence[tuple[str, Colour]], fonts: Fonts) -> None:
    """Draws a translucent panel in the lower left corner, with a swatch per entry. It takes at most a third."""
    letters = fonts.letters(letters_px(picture.width, picture.height))
    row_px = letters.line_px
    pad = max(2, row_px // 4)
    rows = max(0, min(len(entries), (picture.height // 3 - 2 * pad) // row_px))
    if not rows:
        return
    texts = [letters.shortened(text, picture.width - row_px - 4 * pad) for text, _ in entries[:rows]]
    width = min(picture.width, round(max(map(letters.width, texts))) + row_px + 3 * pad)
    panel = Image.new("RGBA", (width, rows * row_px + 2 * pad), (0, 0, 0, 170))
    draw = ImageDraw.Draw(panel)
    for number, (text, (_, colour)) in enumerate(zip(texts, entries, strict=False)):
        top = pad + number * row_px
        draw.rectangle((pad, top + row_px // 8, pad + row_px * 3 // 4, top + row_px * 7 // 8), fill=(*colour, 255))
        letters.write(draw, (pad + row_px, top + (row_px - letters.height_px) / 2), text, "white")
    picture.paste(panel, (0, picture.height - panel.height), panel)


def _places(box: _Rectangle, width: int, height: int, picture: tuple[int, int]) -> Iterator[_Rectangle]:
    """The possible places of a tag, best first: above its box, in the upper corners of a large box, below it."""
    left, top, right, bottom = box
    if width > picture[0] or height > picture[1]:
        return
    above = [(left, top - height), (right - width, top - height)]
    below = [(left, bottom), (right - width, bottom)]
    inside = [(left, top), (right - width, top), (left, bottom - height), (right - width, bottom - height)]
    is_roomy = right - left >= width and bottom - top >= 3 * height
    for x, y in (*above, *inside, *below) if is_roomy else (*above, *below, *inside):
        if 0 <= y <= picture[1] - height:
            start = min(max(0, x), picture[0] - width)
            yield start, y, start + width, y + height


def _overlap(one: _Rectangle, other: _Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
