"""Binary masks as run lengths and as polygons.

Run lengths are COCO's compressed ones: column by column, the lengths of the runs of zeros and ones by turns, beginning
with zeros, as text. Source: github.com/cocodataset/cocoapi, common/maskApi.c.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import faster_coco_eval.core.mask as coco_mask
import numpy as np
import numpy.typing as npt

from models.predictions import RunLengths

Mask = npt.NDArray[np.bool_]
Polygon = tuple[float, ...]  # x, y, x, y, …


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """A mask that is empty outside a rectangle of its picture."""

    pixels: Mask  # [h, w], whole within the picture
    left: int  # px from the picture's edge
    top: int


def encode_region(region: Region, *, width: int, height: int) -> RunLengths:
    """The region in a picture of that size, px. Takes memory by the region, not by the picture."""
    h, w = region.pixels.shape
    columns = np.zeros((w, height), np.uint8)
    columns[:, region.top : region.top + h] = region.pixels.T
    flat = columns.reshape(-1)
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(changes, prepend=0, append=flat.size).tolist() if flat.size else [0]
    if flat.size and flat[0]:
        counts.insert(0, 0)  # the first run is one of zeros
    counts[0] += region.left * height
    after = (width - region.left - w) * height
    if len(counts) % 2:
        counts[-1] += after
    elif after:
        counts.append(after)
    compressed = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return RunLengths(height=height, width=width, counts=compressed["counts"].decode("ascii"))


def encode_mask(mask: Mask) -> RunLengths:
    """`mask`, bool [H, W]."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))  # looks at each pixel once; the rest is small
    region = Region(pixels=mask[top : top + height, left : left + width], left=left, top=top)
    return encode_region(region, width=mask.shape[1], height=mask.shape[0])


def decode_mask(run_lengths: RunLengths) -> Mask:
    """The mask, bool [H, W]."""
    size = [run_lengths.height, run_lengths.width]
    pixels = coco_mask.decode({"size": size, "counts": run_lengths.counts.encode("ascii")})
    return np.asarray(pixels, np.bool_)


def polygons_of(region: Region) -> tuple[Polygon, ...]:
    """The outlines of the region's parts, through the centres of their outermost pixels; holes are filled.

    A part less than two pixels wide or high is its rectangle. Source: Suzuki & Abe 1985, in OpenCV's findContours.
    """
    pixels = np.ascontiguousarray(region.pixels, np.uint8)
    contours, _ = cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return tuple(_polygon(np.asarray(contour, np.int32).reshape(-1, 2), region) for contour in contours)


def _polygon(points: npt.NDArray[np.int32], region: Region) -> Polygon:
    (x_min, y_min), (x_max, y_max) = points.min(axis=0), points.max(axis=0)
    if min(x_max - x_min, y_max - y_min) < 1 or len(points) < 3:
        corners = np.array([(x_min, y_min), (x_max + 1, y_min), (x_max + 1, y_max + 1), (x_min, y_max + 1)], float)
    else:
        corners = points + 0.5
    return tuple(np.add(corners, (region.left, region.top)).reshape(-1).tolist())
