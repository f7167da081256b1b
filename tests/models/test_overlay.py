"""Drawn predictions: seen at every size, labels never outside the image nor on each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from models.drawing.colours import colour_of, ink_on
from models.drawing.fonts import Fonts
from models.drawing.labels import Tag, letters_px, place_tags
from models.drawing.overlay import annotate_detections, annotate_segmentation, line_width
from models.masks.regions import Mask, run_lengths_of
from models.predictions import Box, Detection, Keypoint, Segment, Segmentation
from tests.builders import gradient_tensor

FONTS = Fonts()


def detection(left: float, top: float, right: float, bottom: float, **changes: object) -> Detection:
    values: dict[str, object] = {"label": "person", "index": 1, "score": 0.9}
    return Detection(box=Box(x_min=left, y_min=top, x_max=right, y_max=bottom), **{**values, **changes})  # type: ignore[arg-type]


def covered(drawn: torch.Tensor, index: int) -> torch.Tensor:
    """Where the category's colour is, bool [H, W]."""
    return (drawn == torch.tensor(colour_of(index), dtype=torch.uint8)[:, None, None]).all(dim=0)


@pytest.mark.parametrize(("width", "height"), [(300, 200), (1000, 700), (6000, 4000)])
def test_lines_and_letters_grow_with_the_picture(width: int, height: int) -> None:
    image = torch.full((3, height, width), 255, dtype=torch.uint8)

    drawn = annotate_detections(image, [detection(width * 0.25, height * 0.25, width * 0.75, height * 0.75)], FONTS)

    assert drawn.shape == image.shape
    middle = covered(drawn, 1)[height // 2]
    lines = middle.sum().item()  # left and right edge
    assert lines == 2 * line_width(width, height)
    assert letters_px(width, height) >= 11


@pytest.mark.parametrize("corner", [(0, 0), (260, 0), (0, 170), (260, 170), (-20, -20)])
def test_label_stays_within_the_picture_wherever_the_box_is(corner: tuple[int, int]) -> None:
    picture = Image.new("RGB", (300, 200), "white")
    left, top = corner
    tag = Tag(text="a rather long label 99%", colour=(255, 0, 0), box=(left, top, left + 40, top + 30))

    place_tags(picture, [tag], FONTS, line_px=2)

    red = (np.asarray(picture) == (255, 0, 0)).all(axis=2)
    rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
    assert columns[-1] - columns[0] > 100  # the whole of it
    assert rows[-1] - rows[0] >= 11


def test_labels_do_not_cover_each_other() -> None:
    picture = Image.new("RGB", (300, 200), "white")
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]

    place_tags(
        picture, [Tag(text="same", colour=colour, box=(100, 80, 200, 140)) for colour in colours], FONTS, line_px=2
    )

    sizes = [(np.asarray(picture) == colour).all(axis=2).sum() for colour in colours]
    assert min(sizes) > 0.6 * max(sizes) > 0


def test_label_that_finds_no_place_is_left_out_and_the_surest_is_written() -> None:
    image = torch.full((3, 200, 300), 255, dtype=torch.uint8)
    crowd = [detection(100, 80, 200, 140, score=0.5 + number / 100, index=2) for number in range(30)]

    drawn = annotate_detections(image, [*crowd, detection(100, 80, 200, 140, score=0.99)], FONTS)

    assert covered(drawn, 1)[60:80].any()


def test_masks_are_tinted_and_outlined_and_the_rest_is_left_alone() -> None:
    image = torch.full((3, 200, 300), 100, dtype=torch.uint8)
    mask: Mask = np.zeros((200, 300), bool)
    mask[50:150, 100:200] = True

    drawn = annotate_detections(image, [detection(100, 50, 200, 150, mask=run_lengths_of(mask))], FONTS)

    assert not torch.equal(drawn[:, 100, 150], image[:, 100, 150])
    assert torch.equal(drawn[:, 100, 250], image[:, 100, 250])
    assert torch.equal(drawn[:, 190, 150], image[:, 190, 150])


def test_skeleton_joins_the_points_the_network_is_sure_of() -> None:
    image = torch.full((3, 200, 300), 100, dtype=torch.uint8)
    shoulders = [
        Keypoint(label="left_shoulder", x=100, y=100, score=9),
        Keypoint(label="right_shoulder", x=200, y=100, score=9),
        Keypoint(label="nose", x=150, y=20, score=-3),
    ]

    drawn = annotate_detections(image, [detection(80, 10, 220, 190, keypoints=tuple(shoulders))], FONTS)

    assert covered(drawn, 1)[100, 150]
    assert torch.equal(drawn[:, 20, 150], image[:, 20, 150])


def test_segments_are_tinted_with_a_legend_and_the_background_is_not() -> None:
    image = torch.full((3, 300, 400), 100, dtype=torch.uint8)
    mask: Mask = np.zeros((300, 400), bool)
    mask[50:150, 100:200] = True
    segments = (
        Segment(label="__background__", index=0, share=0.9, mask=run_lengths_of(~mask)),
        Segment(label="dog", index=1, share=0.1, mask=run_lengths_of(mask)),
    )

    drawn = annotate_segmentation(image, Segmentation(segments=segments), FONTS)

    assert torch.equal(drawn[:, 20, 350], image[:, 20, 350])
    assert not torch.equal(drawn[:, 100, 150], image[:, 100, 150])
    assert covered(drawn, 1)[270:, :40].any()  # the legend's swatch


@pytest.mark.parametrize(("width", "height"), [(1, 1), (8, 8), (2, 900), (900, 2), (1, 5000)])
def test_pictures_of_any_size_are_drawn_on(width: int, height: int) -> None:
    whole = np.ones((height, width), bool)
    found = detection(0, 0, width, height, mask=run_lengths_of(whole))

    boxes = annotate_detections(gradient_tensor(width, height), [found], FONTS)
    segmentation = Segmentation(segments=(Segment(label="dog", index=1, share=1, mask=run_lengths_of(whole)),))
    segments = annotate_segmentation(gradient_tensor(width, height), segmentation, FONTS)

    assert boxes.shape == segments.shape
    assert boxes.dtype == torch.uint8


def test_nothing_found_leaves_the_picture_alone() -> None:
    image = gradient_tensor(400, 300)

    assert torch.equal(annotate_detections(image, [], FONTS), image)
    assert torch.equal(annotate_segmentation(image, Segmentation(segments=()), FONTS), image)


@pytest.mark.parametrize("label", ["", "Ärmel", "日本語", "x" * 5000, "two\nlines"])
def test_any_label_is_drawn(label: str) -> None:
    assert annotate_detections(gradient_tensor(300, 200), [detection(9, 9, 99, 99, label=label)], FONTS).shape == (
        3,
        200,
        300,
    )


def test_colours_of_categories_differ_and_their_ink_is_readable() -> None:
    colours = [colour_of(index) for index in range(90)]

    assert len(set(colours)) == 90
    assert colour_of(0, "__background__") == (0, 0, 0)
    assert (ink_on((255, 255, 0)), ink_on((0, 0, 128))) == ((0, 0, 0), (255, 255, 255))
