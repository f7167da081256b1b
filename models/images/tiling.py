"""Cuts large images into tiles, so that small objects keep their pixels, and merges the detections of all tiles.

After Akyon et al. 2022, "Slicing Aided Hyper Inference and Fine-tuning for Small Object Detection" (SAHI).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from models.errors import TooManyTiles

MAX_VIEWS = 256  # per image
MIN_TILE_PX, MAX_TILE_PX = 64, 8192
OVERLAP, MAX_OVERLAP = 0.2, 0.8
_INSIDE = (
    0.7  # a cut box and a whole box are the same object if this share of the cut one's area is inside the whole one
)
_EDGE_PX = 2.0  # a box this close to a tile's edge may continue behind it


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A rectangle of an image, px."""

    left: int
    top: int
    width: int
    height: int


def windows(width: int, height: int, *, tile_px: int | None, overlap: float) -> list[Window]:
    """The whole image and, if it is larger than a tile, tiles of equal size that cover it with even overlaps.

    tile_px: side of a tile, px of the image; None: no tiles. overlap: smallest share of a tile that its neighbour also
    covers. Raises TooManyTiles.
    """
    whole = Window(left=0, top=0, width=width, height=height)
    if tile_px is None or max(width, height) <= tile_px:
        return [whole]
    columns, rows = (_starts(side, tile_px, overlap) for side in (width, height))
    if len(columns) * len(rows) >= MAX_VIEWS:
        raise TooManyTiles(
            f"An image of {width} x {height} px has {len(columns) * len(rows)} tiles of {tile_px} px with that "
            f"overlap; the limit is {MAX_VIEWS - 1}.",
            hint="Ask for larger tiles or less overlap, or cut the image yourself.",
        )
    size = {"width": min(width, tile_px), "height": min(height, tile_px)}
    return [whole, *(Window(left=left, top=top, **size) for top in rows for left in columns)]


def merge_views(
    boxes: Tensor, scores: Tensor, labels: Tensor, views: Tensor, frames: list[Window], *, iou_threshold: float
) -> Tensor:
    """Chooses which detections of an image's views to keep: indices, int64 [M], best first.

    boxes: [N, 4] xyxy, px of the image; views: [N], the index of the frame that each box is from; the first frame is
    the whole image. If two boxes of a category overlap by more than `iou_threshold`, the one with the higher score
    stays. A whole box always beats a box cut by the edge of its tile. A cut box inside a whole box of another view is
    dropped, because it is part of the same object.
    """
    cut = _is_cut(boxes, views, frames)
    kept = batched_nms(boxes, scores + (~cut).to(scores.dtype), labels, iou_threshold)  # scores are at most 1
    whole, parts = kept[~cut[kept]], kept[cut[kept]]
    covered = _share_inside(boxes[parts], boxes[whole])  # [P, W]
    same = (labels[parts][:, None] == labels[whole]) & (views[parts][:, None] != views[whole])
    remaining = torch.cat([whole, parts[~((covered > _INSIDE) & same).any(dim=1)]])
    return remaining[scores[remaining].argsort(descending=True, stable=True)]


def _starts(side: int, tile_px: int, overlap: float) -> list[int]:
    """Where tiles begin along a side: evenly spaced, the last one flush with the end."""
    if side <= tile_px:
        return [0]
    count = -(-(side - tile_px) // max(1, int(tile_px * (1 - overlap)))) + 1
    return [round(number * (side - tile_px) / (count - 1)) for number in range(count)]


def _is_cut(boxes: Tensor, views: Tensor, frames: list[Window]) -> Tensor:
    """Whether a box touches an edge of its view that is not an edge of the image, bool [N]."""
    whole = frames[0]
    # Edges of the image do not cut boxes, so they are moved out of reach.
    inner = boxes.new_tensor(
        [
            [
                frame.left if frame.left > 0 else -torch.inf,
                frame.top if frame.top > 0 else -torch.inf,
                frame.left + frame.width if frame.left + frame.width < whole.width else torch.inf,
                frame.top + frame.height if frame.top + frame.height < whole.height else torch.inf,
            ]
            for frame in frames
        ]
    )[views]
    return (boxes - inner).abs().lt(_EDGE_PX).any(dim=1)


def _share_inside(parts: Tensor, whole: Tensor) -> Tensor:
    """Share of each part's area that is inside each whole box, [P, W]."""
    upper_left = torch.maximum(parts[:, None, :2], whole[None, :, :2])
    lower_right = torch.minimum(parts[:, None, 2:], whole[None, :, 2:])
    common = (lower_right - upper_left).clamp(min=0).prod(dim=2)
    area = (parts[:, 2:] - parts[:, :2]).clamp(min=0).prod(dim=1)
    return common / area.clamp(min=1e-6)[:, None]
