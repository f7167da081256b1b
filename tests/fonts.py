"""Fonts made for a test: a glyph is a triangle of a height of its own, the sign for a missing one is a frame."""

from __future__ import annotations

from pathlib import Path

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

_EM = 1000


def write_font(path: Path, characters: str) -> Path:
    """A TrueType font at `path` that has `characters` and no others."""
    names = {ord(character): f"glyph{number}" for number, character in enumerate(characters, start=1)}
    order = [".notdef", *names.values()]
    font = FontBuilder(_EM, isTTF=True)
    font.setupGlyphOrder(order)
    font.setupCharacterMap(names)
    triangles = {name: _triangle(500 + 20 * number) for number, name in enumerate(order)}
    font.setupGlyf({**triangles, ".notdef": _frame()})
    font.setupHorizontalMetrics(dict.fromkeys(order, (_EM, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    font.setupOS2(sTypoAscender=800, sTypoDescender=-200, usWinAscent=800, usWinDescent=200)
    font.setupPost()
    font.save(path)
    return path


def _triangle(height: int) -> object:
    return _glyph([(50, 0), (450, height), (850, 0)])


def _frame() -> object:
    return _glyph([(50, 0), (50, 700), (650, 700), (650, 0)], [(120, 70), (580, 70), (580, 630), (120, 630)])


def _glyph(*outlines: list[tuple[int, int]]) -> object:
    pen = TTGlyphPen(None)
    for first, *others in outlines:
        pen.moveTo(first)
        for corner in others:
            pen.lineTo(corner)
        pen.closePath()
    return pen.glyph()
