"""Draws text in any script: finds a font for each character, and romanises characters that no font has.

A text is drawn with the first font that has all of it: the chosen one, then DejaVu Sans, which comes with matplotlib
(Latin, Greek, Cyrillic, Arabic, Hebrew), then the system's. If no font has all of it, each part is drawn with the first
font that has the part. A character that no font has is romanised: without a Korean font, 한국어 reads hangugeo.

Pillow joins Arabic letters and orders right-to-left text only where it finds the library FriBiDi. Without it, such text
is romanised too.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

from anyascii import anyascii
from PIL import ImageDraw, ImageFont, features

SYSTEM_DIRECTORIES = tuple(
    Path(path)
    for path in (
        "/usr/share/fonts",
        "/usr/local/share/fonts",
        "/usr/share/fonts-droid-fallback",  # where Debian puts the one with Korean
        "/Library/Fonts",
        "/System/Library/Fonts",
        "C:/Windows/Fonts",
    )
)
_SUFFIXES = frozenset({".ttf", ".otf", ".ttc"})
_UNPLAIN = ("bold", "black", "heavy", "italic", "oblique", "light", "thin", "condensed", "mono", "serif", "lastresort")
_PROBE_PX = 16
_JOINERS = "\u200c\u200d"  # they shape the letters around them and have no glyph
_LONGEST_TEXT = 300  # characters
_ELLIPSIS = "…"

Ink = str | tuple[int, int, int]


class Face:
    """One font file."""

    def __init__(self, path: Path) -> None:
        """Raises OSError if the file is no font, or one of bitmaps that cannot be scaled."""
        self.path = path
        # the basic layout looks each character up in the font's own table, and shapes nothing
        self._probe = ImageFont.truetype(path, _PROBE_PX, layout_engine=ImageFont.Layout.BASIC)
        self._known: dict[str, bool] = {}

    def has(self, character: str) -> bool:
        """Whether the font has a glyph for the character."""
        known = self._known.get(character)
        if known is None:
            glyph = self._probe.getmask(character)
            is_blank = glyph.getbbox() is None and character != " "
            known = self._known[character] = not is_blank and bytes(glyph) != self._missing
        return known

    def sized(self, size_px: int) -> ImageFont.FreeTypeFont:
        return _sized(self.path, size_px)

    @cached_property
    def _missing(self) -> bytes:
        return bytes(self._probe.getmask("\uffff"))  # no font has this character: Unicode reserves it


class Fonts:
    """The fonts to draw with, in the order they are tried.

    chosen: the font to try first.
    can_shape: whether Pillow draws right-to-left text; None asks Pillow.
    """

    def __init__(
        self,
        chosen: Path | None = None,
        *,
        directories: Sequence[Path] = SYSTEM_DIRECTORIES,
        can_shape: bool | None = None,
    ) -> None:
        self._chosen = chosen
        self._directories = directories
        self._can_shape = bool(features.check("raqm")) if can_shape is None else can_shape

    def letters(self, size_px: int) -> Letters:
        """Letters of that size."""
        return Letters(self, size_px)

    def readable(self, text: str) -> str:
        """`text` on one line, with the characters romanised that cannot be drawn."""
        composed = unicodedata.normalize("NFC", " ".join(text[:_LONGEST_TEXT].split()))
        visible = (each for each in composed if not _is_dropped(each, can_shape=self._can_shape))
        pieces = ((is_drawable, "".join(piece)) for is_drawable, piece in groupby(visible, key=self._is_drawable))
        return "".join(piece if is_drawable else _romanised(piece) for is_drawable, piece in pieces)

    def parts(self, text: str) -> list[tuple[Face, str]]:
        """A readable `text` in parts, each with the font to draw it."""
        needed = set(text) - set(_JOINERS)
        for face in self._faces():
            if all(map(face.has, needed)):
                return [(face, text)]
        faces: list[Face] = []
        for character in text:
            before = faces[-1] if faces else self.first
            is_kept = character in _JOINERS or (character == " " and before.has(" "))
            faces.append(before if is_kept else self._face_of(character) or before)
        parts = groupby(zip(faces, text, strict=True), key=lambda pair: pair[0])
        return [(face, "".join(character for _, character in group)) for face, group in parts]

    def files(self, texts: Iterable[str]) -> list[Path]:
        """The font files that draw `texts`, and always the first, in the order they are tried."""
        used = {face for text in texts for face, _ in self.parts(self.readable(text))}
        return [face.path for face in self._faces() if face in used or face is self.first]

    @property
    def first(self) -> Face:
        """The font that is tried first."""
        return self._own[0]

    def _faces(self) -> Iterator[Face]:
        yield from self._own
        yield from self._of_system  # opened only when a character needs them: there may be hundreds

    @cached_property
    def _own(self) -> list[Face]:
        return list(_opened([*([self._chosen] if self._chosen else []), _dejavu()]))

    @cached_property
    def _of_system(self) -> list[Face]:
        return list(_opened(_system_files(self._directories)))

    def _is_drawable(self, character: str) -> bool:
        if character in _JOINERS:
            return True
        if not self._can_shape and unicodedata.bidirectional(character) in ("R", "AL"):
            return False
        return self._face_of(character) is not None

    def _face_of(self, character: str) -> Face | None:
        return next((face for face in self._faces() if face.has(character)), None)


class Letters:
    """Text of one size, in px, in any script."""

    def __init__(self, fonts: Fonts, size_px: int) -> None:
        self._fonts = fonts
        self._size_px = size_px
        self._ascent_px, descent_px = fonts.first.sized(size_px).getmetrics()
        self.height_px = self._ascent_px + descent_px
        self.line_px = round(size_px * 1.4)  # from line to line

    def width(self, text: str) -> float:
        """How wide `text` is, px."""
        return sum(font.getlength(part) for font, part in self._parts(text))

    def shortened(self, text: str, width_px: float) -> str:
        """`text`, or as much of its beginning as fits with an ellipsis."""
        readable = self._fonts.readable(text)
        if self.width(readable) <= width_px:
            return readable
        lengths = range(len(readable))
        fitting = bisect_left(lengths, width_px, key=lambda length: self.width(readable[: length + 1] + _ELLIPSIS))
        return readable[:fitting].rstrip() + _ELLIPSIS if fitting else ""

    def write(self, draw: ImageDraw.ImageDraw, corner: tuple[float, float], text: str, ink: Ink) -> None:
        """Draws `text` on one line; `corner` is its upper left corner."""
        left, top = corner
        for font, part in self._parts(text):
            draw.text((left, top + self._ascent_px), part, font=font, fill=ink, anchor="ls")
            left += font.getlength(part)

    def _parts(self, text: str) -> Iterator[tuple[ImageFont.FreeTypeFont, str]]:
        for face, part in self._fonts.parts(self._fonts.readable(text)):
            yield face.sized(self._size_px), part


@lru_cache(maxsize=64)
def _sized(path: Path, size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size_px)


def _opened(files: Iterable[Path]) -> Iterator[Face]:
    for file in files:
        try:
            yield Face(file)
        except OSError:  # the file has bitmaps, is broken, or may not be read
            continue


def _dejavu() -> Path:
    matplotlib = find_spec("matplotlib")
    assert matplotlib is not None
    assert matplotlib.submodule_search_locations is not None
    return Path(matplotlib.submodule_search_locations[0]) / "mpl-data/fonts/ttf/DejaVuSans.ttf"


def _system_files(directories: Sequence[Path]) -> list[Path]:
    """The font files in `directories`, upright sans-serif ones of regular weight first."""
    files = [file for directory in directories for file in directory.rglob("*") if file.suffix.lower() in _SUFFIXES]
    return sorted(files, key=lambda file: (sum(word in file.stem.lower() for word in _UNPLAIN), file.name))


def _is_dropped(character: str, *, can_shape: bool) -> bool:
    """Whether the character is invisible: it would only reorder or hide the text around it."""
    if character in _JOINERS:
        return not can_shape
    return unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f"


def _romanised(text: str) -> str:
    return anyascii(text) or " ".join(f"U+{ord(character):04X}" for character in text)
