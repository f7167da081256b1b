"""Draws predictions on an image, with lines and letters that grow with its size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from models.drawing.colours import BACKGROUND, Colour, colour_of
from models.drawing.contact_sheet import enlarged, to_picture
from models.drawing.fonts import Fonts
from models.drawing.labels import Tag, draw_legend, place_tags
from models.masks.regions import decode_region
from models.predictions import Box, Detection, Keypoint, Segmentation

Pixels = npt.NDArray[np.uint8]

_SMALLEST_PX = 160
_TINT = 0.45  # opacity of a mask's colour
_SURE_POINT = 0.0  # keypoint scores are logits
# COCO's skeleton: cocodataset.org/#keypoints-2017
_BONES = (
    ("left_ankle", "left_knee"),
    ("left_knee", "left_hip"),
    ("right_ankle", "right_knee"),
    ("right_knee", "right_hip"),
    ("left_hip", "right_hip"),
    ("left_shoulder", "left_hip"),
    ("right_shoulder", "right_hip"),
    ("left_shoulder", "right_shoulder"),
    ("left_shoulder", "left_elbow"),
    ("right_shoulder", "right_elbow"),
    ("left_elbow", "left_wrist"),
    ("right_elbow", "right_wrist"),
    ("left_eye", "right_eye"),
    ("nose", "left_eye"),
    ("nose", "right_eye"),
    ("left_eye", "left_ear"),
    ("right_eye", "right_ear"),
)


def annotate_detections(image: Tensor, detections: Sequence[Detection], fonts: Fonts) -> Tensor:
    """Draws objects on `image`, uint8 [3, H, W]: boxes, tinted masks, skeletons, labels with scores.

    The best detections are drawn last, so they are in front. Images with a side under 160 px are enlarged first.
    Returns uint8 [3, H', W'].
    """
    picture, factor = _canvas(image)
    back_to_front = sorted(detections, key=lambda detection: detection.score)
    line_px = line_width(picture.width, picture.height)
    pixels = np.array(picture)
    for detection in back_to_front:
        if detection.mask is not None:
            _paint(pixels, decode_region(detection.mask), colour_of(detection.index), factor, line_px)
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    for detection in back_to_front:
        _draw_box(draw, detection.box, colour_of(detection.index), factor, line_px)
        if detection.keypoints:
            _draw_skeleton(draw, detection.keypoints, colour_of(detection.index), factor, line_px)
    tags = [
        Tag(
            text=f"{detection.label} {detection.score:.0%}",
            colour=colour_of(detection.index),
            box=_pixels(detection.box, factor),
        )
        for detection in reversed(back_to_front)
    ]
    place_tags(picture, tags, fonts, line_px=line_px)
    return _to_tensor(picture)


def annotate_segmentation(image: Tensor, segmentation: Segmentation, fonts: Fonts) -> Tensor:
    """Tints `image`, uint8 [3, H, W], by category and adds a legend. The background stays unchanged.

    Segments without masks appear only in the legend. Returns uint8 [3, H', W'].
    """
    picture, factor = _canvas(image)
    shown = [segment for segment in segmentation.segments if segment.label not in BACKGROUND]
    line_px = line_width(picture.width, picture.height)
    pixels = np.array(picture)
    for segment in shown:
        if segment.mask is not None:
            _paint(pixels, decode_region(segment.mask), colour_of(segment.index), factor, line_px)
    picture = Image.fromarray(pixels)
    entries = [(f"{segment.label} {segment.share:.1%}", colour_of(segment.index)) for segment in shown]
    draw_legend(picture, entries, fonts)
    return _to_tensor(picture)


def line_width(width: int, height: int) -> int:
    """Thickness of lines on an image of that size, px: 2 at 300 x 300, 4 at 1000, 24 at 6000."""
    return max(2, round(math.sqrt(width * height) / 250))


def _canvas(image: Tensor) -> tuple[Image.Image, int]:
    """The picture to draw on, and the factor by which it was enlarged."""
    original = to_picture(image).convert("RGB")
    picture = enlarged(original, shortest_px=_SMALLEST_PX)
    return picture, picture.width // original.width


def _paint(pixels: Pixels, mask: npt.NDArray[np.bool_], colour: Colour, factor: int, line_px: int) -> None:
    """Tints the mask and draws its outline."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8)
    part = part.repeat(factor, axis=0).repeat(factor, axis=1)
    top, left = int(rows[0]) * factor, int(columns[0]) * factor
    under = pixels[top : top + part.shape[0], left : left + part.shape[1]]
    tinted = cv2.addWeighted(under, 1 - _TINT, np.full_like(under, colour), _TINT, 0)
    np.copyto(under, tinted, where=part.astype(bool)[..., None])
    contours, _ = cv2.findContours(part, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outlined = np.ascontiguousarray(under)
    cv2.drawContours(outlined, contours, -1, colour, max(1, line_px // 2), cv2.LINE_AA)
    under[:] = outlined


def _draw_box(draw: ImageDraw.ImageDraw, box: Box, colour: Colour, factor: int, line_px: int) -> None:
    """Draws the line inside the box, with a thin dark edge that keeps it visible on its own colour."""
    left, top, right, bottom = _pixels(box, factor)
    right, bottom = max(left, right - 1), max(top, bottom - 1)
    width = max(1, min(line_px, (right - left) // 4, (bottom - top) // 4))
    edge = max(1, width // 5) if width > 2 else 0
    if edge:
        draw.rectangle((left, top, right, bottom), outline=(0, 0, 0), width=width + 2 * edge)
        left, top, right, bottom = left + edge, top + edge, right - edge, bottom - edge
    draw.rectangle((left, top, right, bottom), outline=colour, width=width)


def _draw_skeleton(
    draw: ImageDraw.ImageDraw, points: Sequence[Keypoint], colour: Colour, factor: int, line_px: int
) -> None:
    """Draws a dot on each certain keypoint, and lines between the keypoints of people."""
    places = {point.label: (point.x * factor, point.y * factor) for point in points if point.score > _SURE_POINT}
    for one, other in _BONES:
        if one in places and other in places:
            draw.line((*places[one], *places[other]), fill=(0, 0, 0), width=line_px + 2)
            draw.line((*places[one], *places[other]), fill=colour, width=line_px)
    for x, y in places.values():
        draw.circle((x, y), line_px * 1.3, fill=(255, 255, 255), outline=(0, 0, 0), width=max(1, line_px // 3))


def _pixels(box: Box, factor: int) -> tuple[int, int, int, int]:
    return round(box.x_min * factor), round(box.y_min * factor), round(box.x_max * factor), round(box.y_max * factor)


def _to_tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
