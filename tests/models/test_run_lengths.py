from __future__ import annotations

import faster_coco_eval.core.mask as coco_mask
import numpy as np
import pytest

from models.masks.regions import Mask, Region, decode_region, encode_region, polygons_of, run_lengths_of


def noise(height: int, width: int, *, seed: int = 0) -> Mask:
    return np.random.default_rng(seed).random((height, width)) > 0.5


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (7, 13), (60, 40)])
@pytest.mark.parametrize("kind", ["noise", "empty", "full"])
def test_mask_is_encoded_as_the_library_does_it(size: tuple[int, int], kind: str) -> None:
    mask = {"noise": noise(*size), "empty": np.zeros(size, bool), "full": np.ones(size, bool)}[kind]

    encoded = run_lengths_of(mask)

    assert (encoded.height, encoded.width) == size
    assert encoded.counts == coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert np.array_equal(decode_region(encoded), mask)


@pytest.mark.parametrize("corner", [(0, 0), (5, 3), (12, 0), (0, 9), (12, 9)])
@pytest.mark.parametrize("filled", [True, False])
def test_region_is_encoded_as_its_whole_picture(corner: tuple[int, int], filled: bool) -> None:
    pixels = np.ones((11, 8), bool) if filled else noise(11, 8)
    whole = np.zeros((20, 20), bool)
    left, top = corner
    whole[top : top + 11, left : left + 8] = pixels

    assert encode_region(Region(pixels=pixels, left=left, top=top), width=20, height=20) == run_lengths_of(whole)


def test_polygons_draw_the_mask_again() -> None:
    rows, columns = np.ogrid[:80, :100]
    mask = (rows - 40) ** 2 + (columns - 45) ** 2 < 30**2

    polygons = polygons_of(Region(pixels=mask, left=7, top=5))

    assert len(polygons) == 1
    encoded = coco_mask.merge(coco_mask.frPyObjects([list(polygons[0])], 120, 130))
    drawn = coco_mask.decode(encoded).astype(bool)[5:85, 7:107]
    assert (drawn & mask).sum() / (drawn | mask).sum() > 0.95


def test_each_part_has_its_polygon_the_largest_first() -> None:
    mask = np.zeros((20, 20), bool)
    mask[2:9, 3:12] = True
    mask[15, 17] = True

    large, small = polygons_of(Region(pixels=mask, left=100, top=200))

    assert (min(large[0::2]), min(large[1::2]), max(large[0::2]), max(large[1::2])) == (103, 202, 112, 209)
    assert all(117 <= x <= 118 for x in small[0::2])
    assert all(215 <= y <= 216 for y in small[1::2])


def test_empty_region_has_no_polygons() -> None:
    assert polygons_of(Region(pixels=np.zeros((4, 4), bool), left=0, top=0)) == ()
