"""Masks of objects: stored as COCO's run lengths, converted from and to arrays and polygons.

Run lengths go down the columns, begin with zeros, and are packed into printable characters. Source: Lin et al. 2014 and
the `maskApi` of cocodataset/cocoapi. faster-coco-eval does the work. It raises for broken run lengths, where
pycocotools returns random memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import contourpy
import faster_coco_eval.core.mask as coco_mask
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.uint8]  # [H, W], 0 and 1
Polygon = Sequence[float]  # x, y, x, y, … in pixels; the corners of the first pixel are (0, 0) and (1, 1)
Box = tuple[float, float, float, float]  # x_min, y_min, x_max, y_max in pixels

_LONGEST_PX = 2_000_000  # longest outline; the rasteriser takes 40 bytes per pixel of it


class BrokenMask(ValueError):
    """Run lengths or a polygon that do not describe a mask. `str()` says why."""


def encode_mask(mask: npt.NDArray[np.generic]) -> str:
    """The run lengths of `mask`, [H, W]. Every value except 0 counts as inside."""
    encoded = coco_mask.encode(np.asfortranarray(mask != 0, dtype=np.uint8))
    return _text(encoded["counts"])


def decode_mask(counts: str, height: int, width: int) -> Mask:
    """The mask of run lengths: uint8 [height, width], 0 and 1. Raises BrokenMask."""
    try:
        decoded: Mask = coco_mask.decode({"size": [height, width], "counts": counts})
    except (ValueError, RuntimeError, TypeError) as error:
        raise BrokenMask(_first_line(error)) from error
    return decoded


def checked_counts(counts: str | Sequence[int], height: int, width: int) -> str:
    """Packs and checks run lengths, given packed or as numbers. Raises BrokenMask if they do not fill the image."""
    if isinstance(counts, str):
        if not counts.isascii():
            raise BrokenMask("its run lengths contain invalid characters")
        decode_mask(counts, height, width)
        return counts
    if any(type(count) is not int or not 0 <= count <= height * width for count in counts):
        raise BrokenMask("its run lengths are not integers between 0 and the number of pixels of the image")
    if sum(counts) != height * width:
        raise BrokenMask(f"its run lengths add up to {sum(counts):,} pixels, but its size is {height * width:,} pixels")
    encoded = coco_mask.frPyObjects({"size": [height, width], "counts": list(counts)}, height, width)
    return _text(encoded["counts"])


def mask_of_polygons(polygons: Sequence[Polygon], height: int, width: int) -> str:
    """The run lengths of all pixels inside any of `polygons`, each with three corners or more, clipped to the image.

    Corners that are far outside of the image are moved closer. Raises BrokenMask if the outline is too long.
    """
    side = float(max(height, width))
    rows = [np.clip(np.asarray(polygon, dtype=np.float64).reshape(-1, 2), -side, 2 * side) for polygon in polygons]
    if sum(float(np.abs(row - np.roll(row, 1, axis=0)).sum()) for row in rows) > _LONGEST_PX:
        raise BrokenMask(f"its outline is longer than {_LONGEST_PX:,} pixels")
    merged = coco_mask.merge(coco_mask.frPyObjects([row.ravel().tolist() for row in rows], height, width))
    return _text(merged["counts"])


def encode_instances(indices: npt.NDArray[np.integer]) -> dict[int, str]:
    """The run lengths of every value above 0 in `indices`, [H, W], ascending. Scans the image only once."""
    height, width = indices.shape
    flat = indices.ravel(order="F")
    starts = np.flatnonzero(np.concatenate(([True], flat[1:] != flat[:-1])))
    ends = np.append(starts[1:], flat.size)
    values = flat[starts]
    order = np.argsort(values, kind="stable")
    found, firsts = np.unique(values[order], return_index=True)
    encoded: dict[int, str] = {}
    for value, runs in zip(found.tolist(), np.split(order, firsts[1:]), strict=True):
        if value > 0:
            edges = np.stack((starts[runs], ends[runs]), axis=1).ravel()
            counts = np.diff(np.concatenate(([0], edges, [flat.size])))
            counts = counts if counts[-1] else counts[:-1]
            encoded[value] = checked_counts(counts.tolist(), height, width)
    return encoded


def box_of_mask(counts: str, height: int, width: int) -> Box | None:
    """The smallest box around the mask; None if it is empty. `counts` must be checked."""
    rle = {"size": [height, width], "counts": counts}
    if not area_of_mask(counts, height, width):
        return None
    x, y, box_width, box_height = (float(value) for value in coco_mask.toBbox(rle))
    return x, y, x + box_width, y + box_height


def area_of_mask(counts: str, height: int, width: int) -> int:
    """The number of pixels in the mask. `counts` must be checked."""
    return int(coco_mask.area({"size": [height, width], "counts": counts}))


def run_lengths(counts: str) -> list[int]:
    """The run lengths of COCO's compressed `counts`: pixels outside and inside by turns, column by column.

    Source: rleFrString() in pycocotools' maskApi.c: six bits per character, and from the third run on the difference to
    the run before the last.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts.encode():
        bits = character - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return runs


def polygons_of_mask(mask: Mask) -> list[list[float]]:
    """The outlines of `mask`, largest first, as x, y, x, y, …; holes are filled.

    The outline runs half a pixel outside the centres of the outer pixels: marching squares (Lorensen and Cline 1987) on
    the mask with a rim of zeros.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return []
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]  # often a hundredth of the image
    lines = contourpy.contour_generator(z=np.pad(part.astype(np.float32), 1), line_type="Separate").lines(0.5)
    corner = (columns[0] - 0.5, rows[0] - 0.5)  # centre of the rim's first pixel
    outlines = [np.asarray(line, dtype=np.float64)[:-1] + corner for line in lines]  # the last point repeats the first
    signed = [(_signed_area(outline), outline) for outline in outlines if len(outline) >= 3]
    outer = sorted((pair for pair in signed if pair[0] > 0), key=lambda pair: -pair[0])
    return [outline.ravel().round(2).tolist() for _, outline in outer]


def joined_polygon(polygons: Sequence[Polygon]) -> list[float]:
    """One polygon around all of `polygons`, which are connected by lines without width."""
    first = list(polygons[0])
    start = first[:2]
    joined = list(first)
    for polygon in polygons[1:]:
        joined += [*start, *polygon, *polygon[:2]]
    return joined


def _signed_area(outline: npt.NDArray[np.float64]) -> float:
    """Signed area by the shoelace formula. contourpy keeps the inside of a mask on the left of its outline."""
    x, y = outline[:, 0], outline[:, 1]
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _text(counts: bytes | str) -> str:
    return counts.decode("ascii") if isinstance(counts, bytes) else counts


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
