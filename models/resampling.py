"""Bilinear enlargement of a window only, so that memory does not grow with the whole."""

from __future__ import annotations

import torch
from torch import Tensor


def enlarge(
    values: Tensor, *, rows: range, columns: range, scale: tuple[float, float], offset: tuple[int, int] = (0, 0)
) -> Tensor:
    """Pixels `rows` x `columns` of the enlarged `values`, float32 [K, h, w]: float32 [K, len(rows), len(columns)].

    scale: height and width of the enlarged picture over those of the picture that `values` are of, or are a part of
    from `offset` (top, left) on; beyond its edges the nearest value counts.
    The same as torch.nn.functional.interpolate(mode="bilinear", align_corners=False) on everything at once.
    """
    over_rows = _along(values, 1, rows, scale[0], offset[0])
    return _along(over_rows, 2, columns, scale[1], offset[1])


def _along(values: Tensor, dimension: int, positions: range, scale: float, offset: int) -> Tensor:
    last = values.shape[dimension] - 1
    wanted = torch.arange(positions.start, positions.stop, dtype=torch.float32, device=values.device)
    at = ((wanted + 0.5) / scale - 0.5 - offset).clamp_(0, last)
    before = at.floor()
    share = (at - before).view(-1, 1) if dimension == 1 else at - before
    lower = before.long()
    near = values.index_select(dimension, lower)
    far = values.index_select(dimension, (lower + 1).clamp_(max=last))
    return near.lerp_(far, share.expand_as(near))
