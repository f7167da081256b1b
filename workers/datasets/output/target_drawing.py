"""Draws targets on small images: boxes with labels, tinted masks and label maps, and a legend of the colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from models.drawing.colours import BACKGROUND, Colour, colour_of, ink_on
from models.drawing.fonts import Fonts, Letters
from models.masks.coco_masks import Mask, decode_mask
from workers.datasets.dataset import VOID, DatasetObject

_TINT = 0.45  # opacity of a mask
_MIN_WIDTH_FOR_LABEL_PX = 34  # narrower boxes get no label
_MAX_LABELS = 40
_MAX_OBJECTS = 500  # more are no longer readable
_VOID_COLOUR: Colour = (255, 255, 255)
_LETTERS_PX = 11
_SWATCH_PX = 12


def resize_longer_side(image: Image.Image, side_px: int) -> Image.Image:
    """Resizes `image` to a longer side of `side_px`, so that lines of the same width look the same on every image."""
    factor = side_px / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.convert("RGB").resize(size, Image.Resampling.NEAREST if factor > 2 else Image.Resampling.LANCZOS)


def draw_objects(
    image: Image.Image,
    objects: Sequence[DatasetObject],
    categories: Sequence[str],
    fonts: Fonts,
    *,
    size: tuple[int, int],
) -> Image.Image:
    """Returns `image` with tinted masks and with boxes; the larger boxes get labels.

    size: width and height of the original, in whose pixels the objects are; `image` may have another scale.
    """
    largest_first = sorted(objects, key=lambda each: -_area(each))[:_MAX_OBJECTS]
    drawn = image.convert("RGB")
    for each in largest_first:
        if each.mask is not None:
            drawn = _tinted(drawn, decode_mask(each.mask, size[1], size[0]), _colour_of_object(each))
    draw, letters = ImageDraw.Draw(drawn), fonts.letters(_LETTERS_PX)
    scale = (image.width / size[0], image.height / size[1])
    for number, each in enumerate(largest_first):
        left, upper, right, lower = (
            round(value * factor) for value, factor in zip(each.box, (*scale, *scale), strict=True)
        )
        right, lower = max(left, min(right, drawn.width) - 1), max(upper, min(lower, drawn.height) - 1)
        thickness = 1 if each.is_crowd or each.is_difficult else 2
        draw.rectangle((left, upper, right, lower), outline=_colour_of_object(each), width=thickness)
        if right - left >= _MIN_WIDTH_FOR_LABEL_PX and number < _MAX_LABELS:
            _label(draw, letters, (left, upper), right - left, categories[each.category], _colour_of_object(each))
    return drawn


def draw_label_map(image: Image.Image, indices: npt.NDArray[np.uint8], categories: Sequence[str]) -> Image.Image:
    """Returns `image` tinted in the colour of the category at every pixel; void is tinted white.

    indices: [H, W], category indices. Pixels of a category called `background` are not tinted.
    """
    table = np.array([*(colour_of(index) for index in range(VOID)), _VOID_COLOUR], dtype=np.uint8)
    small = np.asarray(Image.fromarray(indices).resize(image.size, Image.Resampling.NEAREST))  # [h, w] of `image`
    plain = image.convert("RGB")
    tinted = np.asarray(Image.blend(plain, Image.fromarray(table[small]), 0.55))
    shown = ~np.isin(small, [index for index, category in enumerate(categories) if _is_background(category)])
    return Image.fromarray(np.where(shown[:, :, None], tinted, np.asarray(plain)))


def legend(categories: Sequence[str], side_px: int, fonts: Fonts, *, first: int) -> Image.Image:
    """Returns a square image of `side_px` that names the colours of as many categories as fit.

    first: the colour index of the first category: 1 for objects, 0 for label maps.
    """
    image = Image.new("RGB", (side_px, side_px), "white")
    draw = ImageDraw.Draw(image)
    letters = fonts.letters(_LETTERS_PX + 3)
    line_px = letters.line_px
    room = max(1, (side_px - 8) // line_px)
    shown = list(categories) if len(categories) <= room else list(categories)[: room - 1]
    for number, category in enumerate(shown):
        top = 6 + number * line_px
        colour = "white" if _is_background(category) else colour_of(first + number)
        draw.rectangle((6, top, 6 + _SWATCH_PX, top + _SWATCH_PX), fill=colour, outline="gray")
        words = letters.shortened(category, side_px - _SWATCH_PX - 18)
        letters.write(draw, (12 + _SWATCH_PX, top - 2), words, "black")
    if len(shown) < len(categories):
        more = f"and {len(categories) - len(shown):,} more"
        letters.write(draw, (6, 4 + len(shown) * line_px), more, "black")
    return image


def _colour_of_object(each: DatasetObject) -> Colour:
    """The colour that predictions have, too: they number the categories from 1."""
    return colour_of(each.category + 1)


def _is_background(category: str) -> bool:
    return category.casefold() in BACKGROUND


def _area(each: DatasetObject) -> float:
    x_min, y_min, x_max, y_max = each.box
    return (x_max - x_min) * (y_max - y_min)


def _tinted(image: Image.Image, mask: Mask, colour: Colour) -> Image.Image:
    opacity = Image.fromarray(mask * np.uint8(round(255 * _TINT))).resize(image.size, Image.Resampling.BOX)
    return Image.composite(Image.new("RGB", image.size, colour), image, opacity)


def _label(
    draw: ImageDraw.ImageDraw, letters: Letters, corner: tuple[int, int], width_px: int, text: str, colour: Colour
) -> None:
    words = letters.shortened(text, width_px - 4)
    if len(words) < 2:  # nothing, or the ellipsis alone
        return
    left, upper = corner
    draw.rectangle((left, upper, left + round(letters.width(words)) + 4, upper + letters.height_px), fill=colour)
    letters.write(draw, (left + 2, upper), words, ink_on(colour))
