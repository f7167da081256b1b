"""Labels of any script: drawn with a font that has them, or romanised; never the boxes of missing glyphs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont, features

from models.drawing.fonts import Fonts
from tests.fonts import write_font

TEXTS = (
    "Überraschung",
    "한국어",
    "日本語",
    "العربية",
    "שלום",
    "हिन्दी",
    "Ελληνικά",
    "Привет",
    "😀 ok",
    "a\u0308 \ud7fc",
    "中 한 ع é",
)
CAN_SHAPE = pytest.mark.skipif(not features.check("raqm"), reason="Pillow finds no FriBiDi")


def drawn(fonts: Fonts, text: str, *, size_px: int = 40) -> npt.NDArray[np.uint8]:
    """`text` in black on white, uint8 [H, W]."""
    letters = fonts.letters(size_px)
    image = Image.new("L", (round(letters.width(text)) + 40, letters.height_px + 40), 255)
    letters.write(ImageDraw.Draw(image), (20, 20), text, "black")
    return np.asarray(image)


def missing_glyph(fonts: Fonts, *, size_px: int = 40) -> list[npt.NDArray[np.uint8]]:
    """What each font of `fonts` that has one draws for a glyph it lacks, with a margin."""
    glyphs = []
    for path in fonts.files(TEXTS):
        image = Image.new("L", (3 * size_px, 3 * size_px), 255)
        ImageDraw.Draw(image).text((size_px, size_px), "\uffff", "black", ImageFont.truetype(path, size_px))
        if box := Image.eval(image, lambda level: 255 - level).getbbox():
            glyphs.append(np.asarray(image.crop(box)))
    return glyphs


def is_in(part: npt.NDArray[np.uint8], whole: npt.NDArray[np.uint8]) -> bool:
    if part.shape[0] > whole.shape[0] or part.shape[1] > whole.shape[1]:
        return False
    return float(cv2.matchTemplate(whole, part, cv2.TM_CCOEFF_NORMED).max()) > 0.95


@pytest.fixture(params=["system", "none", "one that has Korean"])
def fonts(request: pytest.FixtureRequest, tmp_path: Path) -> Fonts:
    if request.param == "system":
        return Fonts()
    if request.param == "none":
        return Fonts(directories=())
    write_font(tmp_path / "Korean.ttf", "한국어")
    return Fonts(directories=(tmp_path,))


@pytest.mark.parametrize("text", TEXTS)
def test_every_character_drawn_is_in_the_table_of_its_font(fonts: Fonts, text: str) -> None:
    parts = fonts.parts(fonts.readable(text))

    assert "".join(part for _, part in parts).strip()
    for face, part in parts:
        characters = TTFont(face.path, fontNumber=0).getBestCmap()
        assert [each for each in part if ord(each) not in characters and not each.isspace()] == []


@pytest.mark.parametrize("text", TEXTS)
def test_no_pixels_of_a_missing_glyph_are_drawn(fonts: Fonts, text: str) -> None:
    boxes = missing_glyph(fonts)

    image = drawn(fonts, text)

    assert boxes
    assert image.min() < 128
    assert not [box for box in boxes if is_in(box, image)]


def test_pixels_of_a_missing_glyph_would_be_seen() -> None:
    (box,) = missing_glyph(Fonts(directories=()))
    image = Image.new("L", (200, 100), 255)
    font = ImageFont.truetype(Fonts(directories=()).first.path, 40)

    ImageDraw.Draw(image).text((20, 20), "a한b", "black", font)

    assert is_in(box, np.asarray(image))


def test_text_is_drawn_with_the_chosen_font_before_any_other(tmp_path: Path) -> None:
    chosen = write_font(tmp_path / "Chosen.ttf", "abc한")

    with_it, without = Fonts(chosen, directories=()), Fonts(directories=())

    assert with_it.files(["cab"])[0] == chosen
    assert not np.array_equal(drawn(with_it, "cab"), drawn(without, "cab"))
    assert with_it.readable("한 x") == "한 x"


def test_font_that_has_all_of_a_text_is_preferred_to_a_mixture(tmp_path: Path) -> None:
    write_font(tmp_path / "A.ttf", "한국")
    whole = write_font(tmp_path / "B.ttf", "한국어")

    assert [face.path for face, _ in Fonts(directories=(tmp_path,)).parts("한국어")] == [whole]


def test_parts_are_drawn_side_by_side_where_no_font_has_all(tmp_path: Path) -> None:
    write_font(tmp_path / "Korean.ttf", "한국어")
    fonts = Fonts(directories=(tmp_path,))

    parts = [part for _, part in fonts.parts("한국어 95% ж")]

    assert parts == ["한국어", " 95% ж"]  # the font made here has no space
    letters = fonts.letters(20)
    assert letters.width("한국어 95% ж") > letters.width("한국어") + letters.width("95% ж")


@pytest.mark.parametrize(
    ("text", "romanised"),
    [
        ("한국어 95%", "HanGugEo 95%"),
        ("日本語", "RiBenYu"),
        ("हिन्दी", "hindi"),
        ("\ud7fc", "U+D7FC"),  # no character at all
        ("Überraschung", "Überraschung"),
        ("U\u0308ber", "Über"),  # as file names of macOS are written
    ],
)
def test_what_no_font_has_is_romanised(text: str, romanised: str) -> None:
    assert Fonts(directories=()).readable(text) == romanised


def test_right_to_left_text_is_romanised_where_it_cannot_be_shaped() -> None:
    assert Fonts(directories=(), can_shape=False).readable("שלום, ok") == "slvm, ok"


@CAN_SHAPE
def test_arabic_letters_are_joined_and_run_from_right_to_left() -> None:
    letters = Fonts(directories=()).letters(40)

    assert letters.width("بب") < 2 * letters.width("ب") - 4  # the first and last forms are narrower than the single one
    percent_first, percent_last = drawn(Fonts(directories=()), "ب 100"), drawn(Fonts(directories=()), "100 b")
    assert (percent_first.argmin(axis=1) > 0).any()
    assert np.flatnonzero((percent_first < 128).any(axis=0))[0] == np.flatnonzero((percent_last < 128).any(axis=0))[0]


@pytest.mark.parametrize("text", ["\u202egnp.elif", "\u200bgn\u00adp.elif", "\ufeffgnp.elif", "gnp.\nelif\t"])
def test_characters_that_reorder_or_hide_text_are_dropped(text: str) -> None:
    assert Fonts().readable(text).replace(" ", "") == "gnp.elif"


def test_long_text_is_shortened_to_as_much_as_fits() -> None:
    letters = Fonts(directories=()).letters(20)

    short = letters.shortened("an endless label " * 50, 120)

    assert short.startswith("an endl")
    assert short.endswith("…")
    assert 100 < letters.width(short) <= 120
    assert letters.shortened("fits", 120) == "fits"
    assert letters.shortened("does not", 5) == ""


def test_files_that_are_no_fonts_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    (tmp_path / "folder.otf").mkdir()
    korean = write_font(tmp_path / "korean.TTF", "한")

    assert Fonts(directories=(tmp_path, tmp_path / "absent")).files(["한"])[-1] == korean
