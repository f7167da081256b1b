from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from models.errors import TooManyTiles
from models.images.tiling import MAX_VIEWS, Window, merge_views, windows


@pytest.mark.parametrize("size", [(1, 1), (640, 640), (640, 12), (1, 640)])
def test_picture_of_a_tile_or_less_is_seen_whole_only(size: tuple[int, int]) -> None:
    assert windows(*size, tile_px=640, overlap=0.2) == [Window(left=0, top=0, width=size[0], height=size[1])]


def test_without_tiles_every_picture_is_seen_whole_only() -> None:
    assert len(windows(9000, 9000, tile_px=None, overlap=0.2)) == 1


@pytest.mark.parametrize("size", [(641, 300), (1000, 1000), (3000, 2000), (1, 5000), (5000, 1), (2817, 641)])
@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.5])
def test_tiles_cover_the_picture_with_at_least_the_overlap(size: tuple[int, int], overlap: float) -> None:
    whole, *tiles = windows(*size, tile_px=640, overlap=overlap)

    assert (whole.width, whole.height) == size
    seen = torch.zeros(size[1], size[0], dtype=torch.bool)
    for tile in tiles:
        assert (tile.width, tile.height) == (min(640, size[0]), min(640, size[1]))
        seen[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width] = True
    assert seen.all()
    starts = sorted({tile.left for tile in tiles})
    assert all(later - earlier <= 640 * (1 - overlap) + 1 for earlier, later in pairwise(starts))


def test_too_many_tiles_are_refused_with_the_way_out() -> None:
    with pytest.raises(TooManyTiles, match=str(MAX_VIEWS - 1)) as refused:
        windows(20_000, 20_000, tile_px=64, overlap=0.8)
    assert refused.value.hint is not None


FRAMES = [
    Window(left=0, top=0, width=180, height=100),
    Window(left=0, top=0, width=100, height=100),
    Window(left=80, top=0, width=100, height=100),
]


def merged(*detections: tuple[tuple[float, float, float, float], float, int, int]) -> list[int]:
    """Which of (box, score, label, view) stay."""
    boxes, scores, labels, views = zip(*detections, strict=True)
    kept = merge_views(
        torch.tensor(boxes, dtype=torch.float32),
        torch.tensor(scores),
        torch.tensor(labels),
        torch.tensor(views),
        FRAMES,
        iou_threshold=0.5,
    )
    return kept.tolist()


def test_object_seen_in_several_views_is_one() -> None:
    assert merged(((82, 10, 98, 30), 0.7, 1, 0), ((82, 10, 98, 30), 0.9, 1, 1), ((83, 10, 98, 30), 0.8, 1, 2)) == [1]


def test_objects_of_different_categories_stay() -> None:
    assert merged(((10, 10, 30, 30), 0.7, 1, 0), ((10, 10, 30, 30), 0.9, 2, 1)) == [1, 0]


def test_whole_object_wins_over_a_surer_part_that_the_tile_cuts() -> None:
    assert merged(((60, 10, 100, 30), 0.9, 1, 1), ((60, 10, 120, 30), 0.6, 1, 0)) == [1]


def test_small_part_in_a_tile_belongs_to_the_whole_object() -> None:
    assert merged(((90, 10, 100, 30), 0.9, 1, 1), ((84, 10, 170, 30), 0.6, 1, 2)) == [1]
    assert merged(((90, 10, 100, 30), 0.9, 1, 1), ((70, 10, 170, 30), 0.6, 1, 0)) == [1]


def test_object_at_the_pictures_own_edge_is_whole() -> None:
    assert merged(((0, 0, 20, 20), 0.9, 1, 1), ((0, 0, 30, 25), 0.6, 1, 0)) == [0]


def test_nothing_found_stays_nothing() -> None:
    empty = torch.zeros(0)
    kept = merge_views(torch.zeros(0, 4), empty, empty.long(), empty.long(), FRAMES, iou_threshold=0.5)
    assert kept.tolist() == []
