"""Writes class predictions on an image, and makes contact sheets of many images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from models.drawing.fonts import Fonts, Letters
from models.predictions import ClassScore

_GOOD, _BAD, _PLAIN = "#1a7f37", "#cf222e", "#57606a"
_INK, _PAPER = "#1f2328", "#ffffff"


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """One image of a contact sheet."""

    image: Tensor | Image.Image  # uint8 [3, H, W] or [1, H, W]
    caption: str  # may have several lines
    good: bool | None = None  # the frame is green if true, red if false, grey if None


def contact_sheet(
    tiles: Sequence[Tile], fonts: Fonts, *, columns: int = 8, tile_px: int = 160, title: str | None = None
) -> bytes:
    """A PNG of `tiles` in rows of `columns`. Each image is fitted into a square of `tile_px`, above its caption."""
    letters = fonts.letters(max(11, tile_px // 12))
    line_px = letters.line_px
    margin = max(4, tile_px // 20)
    columns = max(1, min(columns, len(tiles)))
    rows = -(-len(tiles) // columns)
    lines = max((len(tile.caption.splitlines()) for tile in tiles), default=0)
    cell_width, cell_height = tile_px + 2 * margin, tile_px + 2 * margin + lines * line_px
    top = line_px + 2 * margin if title else 0
    sheet = Image.new("RGB", (columns * cell_width, top + max(1, rows) * cell_height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        letters.write(draw, (margin, margin), letters.shortened(title, sheet.width - 2 * margin), _INK)
    for position, tile in enumerate(tiles):
        left = position % columns * cell_width + margin
        upper = top + position // columns * cell_height + margin
        _draw_tile(sheet, draw, tile, (left, upper), tile_px, letters)
    encoded = BytesIO()
    sheet.save(encoded, "PNG")
    return encoded.getvalue()


def annotate_classes(image: Tensor, scores: Sequence[ClassScore], fonts: Fonts) -> Tensor:
    """`image`, uint8 [3, H, W], with a panel of labels and scores at its bottom, readable at any size.

    Images with a side under 160 px are enlarged first. Returns uint8 [3, H', W'].
    """
    picture = enlarged(to_picture(image).convert("RGB"), shortest_px=160)
    letters = fonts.letters(max(12, min(picture.size) // 24))
    pad = max(4, min(picture.size) // 60)
    shown = list(scores)[: max(1, (picture.height - 2 * pad) // letters.line_px)] if scores else []
    if shown:
        _draw_scores(picture, shown, letters, pad=pad)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def to_picture(image: Tensor | Image.Image) -> Image.Image:
    """`image` as a Pillow image. A tensor is uint8 [3, H, W] or [1, H, W]."""
    if isinstance(image, Image.Image):
        return image
    pixels = image.detach().cpu().permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))


def _draw_tile(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, corner: tuple[int, int], tile_px: int, letters: Letters
) -> None:
    left, upper = corner
    picture = _fitted(to_picture(tile.image).convert("RGB"), tile_px)
    sheet.paste(picture, (left + (tile_px - picture.width) // 2, upper + (tile_px - picture.height) // 2))
    colour = {True: _GOOD, False: _BAD, None: _PLAIN}[tile.good]
    thickness = 1 if tile.good is None else max(2, tile_px // 50)
    draw.rectangle((left, upper, left + tile_px - 1, upper + tile_px - 1), outline=colour, width=thickness)
    for number, line in enumerate(tile.caption.splitlines()):
        where = (left, upper + tile_px + 2 + number * letters.line_px)
        letters.write(draw, where, letters.shortened(line, tile_px), _INK if tile.good is None else colour)


def _draw_scores(picture: Image.Image, scores: Sequence[ClassScore], letters: Letters, *, pad: int) -> None:
    """Draws a translucent panel at the bottom. Behind each label, a bar shows the score."""
    line_px = letters.line_px
    panel_height = len(scores) * line_px + 2 * pad
    panel = Image.new("RGBA", (picture.width, panel_height), (0, 0, 0, 170))
    draw = ImageDraw.Draw(panel)
    for number, score in enumerate(scores):
        upper = pad + number * line_px
        length = round(max(0, picture.width - 2 * pad) * min(1.0, max(0.0, score.score)))
        draw.rectangle((pad, upper, pad + length, upper + line_px - max(1, line_px // 8)), fill=(26, 127, 55, 220))
        percent = f"{score.score:.1%}"
        percent_width = round(letters.width(percent))
        label = letters.shortened(score.label, picture.width - 6 * pad - percent_width)
        letters.write(draw, (2 * pad, upper), label, "white")
        letters.write(draw, (picture.width - 2 * pad - percent_width, upper), percent, "white")
    picture.paste(panel, (0, picture.height - panel_height), panel)


def _fitted(picture: Image.Image, side_px: int) -> Image.Image:
    """`picture` scaled so that its longer side is `side_px`. Small images are enlarged without smoothing."""
    scale = side_px / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.NEAREST if scale > 2 else Image.Resampling.LANCZOS)


def enlarged(picture: Image.Image, *, shortest_px: int) -> Image.Image:
    """A small `picture` enlarged by a whole factor, so that letters fit on it. A very long one stays unchanged."""
    factor = -(-shortest_px // max(1, min(picture.size)))
    if factor <= 1 or max(picture.size) * factor > 8 * shortest_px:
        return picture
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
