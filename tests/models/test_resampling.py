from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from models.images.resampling import enlarge


@pytest.mark.parametrize(
    ("size", "target"), [((6, 8), (23, 17)), ((9, 7), (4, 30)), ((1, 1), (5, 5)), ((5, 5), (1, 1))]
)
def test_windows_are_parts_of_the_whole(size: tuple[int, int], target: tuple[int, int]) -> None:
    values = torch.randn(3, *size, generator=torch.Generator().manual_seed(0))
    whole = interpolate(values[None], size=target, mode="bilinear", align_corners=False)[0]
    scale = (target[0] / size[0], target[1] / size[1])

    rows, columns = range(target[0] // 3, target[0]), range(target[1] // 2 + 1)
    part = enlarge(values.numpy(), rows=rows, columns=columns, scale=scale)

    torch.testing.assert_close(torch.from_numpy(part), whole[:, rows.start : rows.stop, columns.start : columns.stop])


def test_part_with_its_offset_gives_what_the_whole_gives() -> None:
    values = np.zeros((20, 20), np.float32)
    values[6:12, 5:15] = 1
    whole = enlarge(values, rows=range(50), columns=range(60), scale=(2.5, 3.0))

    part = enlarge(values[4:14, 3:17], rows=range(50), columns=range(60), scale=(2.5, 3.0), offset=(4, 3))

    np.testing.assert_allclose(part, whole, atol=1e-6)
