"""Masks of predictions: regions of an image as run lengths (`models.masks.coco_masks`) and polygons."""

from __future__ import annotations

from dataclasses import dataclass

import faster_coco_eval.core.mask as coco_mask
import numpy as np
import numpy.typing as npt

from models.masks.coco_masks import decode_mask, polygons_of_mask
from models.predictions import RunLengths

Mask = npt.NDArray[np.bool_]
Polygon = tuple[float, ...]  # x, y, x, y, …


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """A mask inside a rectangle of its image. The rest of the mask is empty."""

    pixels: Mask  # [h, w], completely inside the image
    left: int  # px from the image's edge
    top: int


def encode_region(region: Region, *, width: int, height: int) -> RunLengths:
    """The run lengths of the region in an image of that size, px. Memory grows with the region, not with the image."""
    h, w = region.pixels.shape
    columns = np.zeros((w, height), np.uint8)
    columns[:, region.top : region.top + h] = region.pixels.T
    flat = columns.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(changes, prepend=0, append=flat.size).tolist() if flat.size else [0]
    if flat.size and flat[0]:
        counts.insert(0, 0)  # the first run is always of zeros
    counts[0] += region.left * height
    after = (width - region.left - w) * height
    if len(counts) % 2:
        counts[-1] += after
    elif after:
        counts.append(after)
    compressed = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return RunLengths(height=height, width=width, counts=compressed["counts"].decode("ascii"))


def run_lengths_of(mask: Mask) -> RunLengths:
    """The run lengths of `mask`, bool [H, W]."""
    return encode_region(Region(pixels=mask, left=0, top=0), width=mask.shape[1], height=mask.shape[0])


def decode_region(run_lengths: RunLengths) -> Mask:
    """The whole mask, bool [H, W]."""
    return decode_mask(run_lengths.counts, run_lengths.height, run_lengths.width).astype(np.bool_)


def polygons_of(region: Region) -> tuple[Polygon, ...]:
    """The outlines of the region's parts, largest first; holes are filled."""
    outlines = polygons_of_mask(region.pixels.astype(np.uint8))
    corner = (region.left, region.top)
    return tuple(tuple(np.add(np.reshape(outline, (-1, 2)), corner).reshape(-1).tolist()) for outline in outlines)
