from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from models.drawing.contact_sheet import Tile, annotate_classes, contact_sheet
from models.drawing.fonts import Fonts
from models.predictions import ClassScore
from tests.builders import gradient_image, gradient_tensor

FONTS = Fonts()
SCORES = [ClassScore(label="ant", index=0, score=0.98), ClassScore(label="bee", index=1, score=0.02)]


def opened(png: bytes) -> Image.Image:
    image = Image.open(BytesIO(png))
    assert image.format == "PNG"
    return image.convert("RGB")


def test_sheet_has_a_cell_for_every_tile() -> None:
    tiles = [Tile(image=gradient_tensor(seed=seed), caption=f"tile {seed}") for seed in range(10)]

    four, five = (opened(contact_sheet(tiles, FONTS, columns=columns, tile_px=100)) for columns in (4, 5))

    assert four.width * 5 == five.width * 4
    assert four.height * 2 == five.height * 3


def test_sheet_shows_each_picture() -> None:
    colours = [(200, 10, 10), (10, 200, 10), (10, 10, 200)]
    tiles = [Tile(image=Image.new("RGB", (50, 50), colour), caption="x") for colour in colours]

    sheet = opened(contact_sheet(tiles, FONTS, columns=3, tile_px=90))

    width = sheet.width // 3
    assert [sheet.getpixel((width * column + width // 2, 50)) for column in range(3)] == colours


@pytest.mark.parametrize(("good", "channel"), [(True, 1), (False, 0)])
def test_frame_says_good_or_bad(good: bool, channel: int) -> None:
    white = Image.new("RGB", (50, 50), "white")

    sheet = np.asarray(opened(contact_sheet([Tile(image=white, caption="x", good=good)], FONTS, tile_px=100)))

    frame = sheet[60, 5:9].mean(axis=0)
    assert frame.argmax() == channel


@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (2000, 3), (28, 28)])
def test_tiles_of_any_size_fit(size: tuple[int, int]) -> None:
    tiles = [
        Tile(image=gradient_image(*size), caption="x"),
        Tile(image=torch.zeros(1, 28, 28, dtype=torch.uint8), caption=""),
    ]

    assert opened(contact_sheet(tiles, FONTS, columns=2, tile_px=80)).width == 2 * (80 + 8)


def test_sheet_without_tiles_is_still_a_picture() -> None:
    assert opened(contact_sheet([], FONTS)).width > 0


def test_long_captions_stay_in_their_cell() -> None:
    tiles = [Tile(image=gradient_tensor(), caption="a very long label indeed " * 200)] * 2

    sheet = np.asarray(opened(contact_sheet(tiles, FONTS, columns=2, tile_px=100)))

    between = sheet[-12:, 105:115]  # the margin right of the first caption
    assert (between == 255).all()


def test_title_is_written_above() -> None:
    tiles = [Tile(image=gradient_tensor(), caption="x")]

    with_title, without = (opened(contact_sheet(tiles, FONTS, title=title)) for title in ("A title", None))

    assert with_title.height > without.height


@pytest.mark.parametrize(("width", "height"), [(300, 200), (1200, 900), (6000, 4000)])
def test_annotation_takes_a_readable_share_at_any_size(width: int, height: int) -> None:
    image = torch.full((3, height, width), 255, dtype=torch.uint8)

    drawn = annotate_classes(image, SCORES, FONTS)

    assert drawn.shape == image.shape
    panel_rows = (drawn.float().mean(dim=(0, 2)) < 200).sum()
    assert 0.06 < panel_rows / height < 0.3


def test_annotation_leaves_the_rest_of_the_picture_alone() -> None:
    image = gradient_tensor(400, 300)

    drawn = annotate_classes(image, SCORES, FONTS)

    assert torch.equal(drawn[:, :200], image[:, :200])
    assert not torch.equal(drawn, image)


def test_higher_score_draws_a_longer_bar() -> None:
    image = torch.zeros(3, 300, 400, dtype=torch.uint8)

    certain, doubtful = (
        (annotate_classes(image, [ClassScore(label="ant", index=0, score=score)], FONTS)[1] > 60).sum()
        for score in (0.9, 0.1)
    )

    assert certain > doubtful


@pytest.mark.parametrize(("width", "height"), [(1, 1), (8, 8), (28, 28), (2, 900), (900, 2)])
def test_tiny_pictures_are_annotated_too(width: int, height: int) -> None:
    drawn = annotate_classes(gradient_tensor(width, height), SCORES, FONTS)

    assert drawn.dtype == torch.uint8
    assert drawn.shape[0] == 3


def test_small_pictures_are_enlarged_to_be_readable() -> None:
    assert min(annotate_classes(gradient_tensor(28, 28), SCORES, FONTS).shape[1:]) >= 160


def test_more_scores_than_fit_are_cut() -> None:
    scores = [ClassScore(label=f"category {index}", index=index, score=0.001) for index in range(1000)]

    assert annotate_classes(gradient_tensor(300, 200), scores, FONTS).shape == (3, 200, 300)


def test_nothing_to_say_leaves_the_picture_alone() -> None:
    image = gradient_tensor(400, 300)

    assert torch.equal(annotate_classes(image, [], FONTS), image)


@pytest.mark.parametrize("label", ["", "Ärmel", "日本語", "x" * 5000, "two\nlines"])
def test_any_label_is_drawn(label: str) -> None:
    assert (
        annotate_classes(gradient_tensor(300, 200), [ClassScore(label=label, index=0, score=1.0)], FONTS).shape[0] == 3
    )
