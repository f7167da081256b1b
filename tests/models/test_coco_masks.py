"""Run lengths of masks, compared with figures by hand."""

from __future__ import annotations

import numpy as np
import pytest

from models.masks.coco_masks import encode_mask, run_lengths


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_are_those_of_the_mask(seed: int) -> None:
    """By hand: the lengths of runs of equal pixels, column by column, beginning with those outside."""
    generator = np.random.default_rng(seed)
    mask = np.repeat(generator.random((37, 9)) < generator.choice([0.03, 0.5, 0.97]), 7, axis=1)
    column_by_column = mask.T.reshape(-1)
    ends = np.flatnonzero(np.diff(column_by_column.astype(int))) + 1
    expected = np.diff([0, *ends, column_by_column.size]).tolist()
    assert run_lengths(encode_mask(mask)) == ([0] if column_by_column[0] else []) + expected
