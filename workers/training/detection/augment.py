"""Random changes to a picture together with its boxes and masks.

Every random number comes from the generator that is passed in. The geometry is one crop and one resize of the original
pixels, by torchvision's `transforms.v2` on tv_tensors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Generator, Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as transforms

from models.manifest import ScalePreset
from models.presets import scaled_size

MIN_ZOOM, MAX_ZOOM = 0.6, 1.6  # of the preset's scale
COLOUR = 0.3  # brightness, contrast and saturation are changed by at most so much
VIEW_TRIES = 8
_LEAST_VISIBLE = 0.35  # share of an object's box that a crop must leave
_LEAST_SIDE_PX = 2.0

InputT = TypeVar("InputT", bound=Tensor)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A picture and what is on it, in its pixels."""

    image: Tensor  # uint8 [3, h, w]
    boxes: Tensor  # float32 [N, 4], xyxy
    labels: Tensor  # int64 [N], from 1
    masks: Tensor | None = None  # uint8 [N, h, w], 0 or 1
    proposals: Tensor | None = None  # float32 [P, 4], xyxy


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """A part of a picture, px, and the size it is brought to."""

    top: int
    left: int
    height: int
    width: int
    size: tuple[int, int]  # height, width


def whole_view(preset: ScalePreset, height: int, width: int) -> View:
    """All of a picture at the preset's scale."""
    return View(top=0, left=0, height=height, width=width, size=scaled_size(preset, height, width))


def random_view(preset: ScalePreset, height: int, width: int, generator: Generator) -> View:
    """A part at a larger scale, or all at a smaller one. Source: scale jitter, Ghiasi et al. 2021, sec. 3."""
    whole = whole_view(preset, height, width)
    zoom = math.exp(_uniform(math.log(MIN_ZOOM), math.log(MAX_ZOOM), generator))
    if zoom < 1:
        if not preset.keeps_aspect:
            return whole  # its size is fixed
        return replace(whole, size=(max(1, round(whole.size[0] * zoom)), max(1, round(whole.size[1] * zoom))))
    part_height, part_width = max(1, round(height / zoom)), max(1, round(width / zoom))
    top = int(torch.randint(height - part_height + 1, (), generator=generator))
    left = int(torch.randint(width - part_width + 1, (), generator=generator))
    return View(top=top, left=left, height=part_height, width=part_width, size=whole.size)


def look(sample: Sample, view: View) -> Sample:
    """What `view` shows of `sample`. Objects of which too little is left are left out."""
    canvas = (sample.image.shape[-2], sample.image.shape[-1])
    boxes = _through(tv_tensors.BoundingBoxes(sample.boxes, format="XYXY", canvas_size=canvas), view)
    scales = boxes.new_tensor([view.size[1] / view.width, view.size[0] / view.height])  # x, y
    full = ((sample.boxes[:, 2:] - sample.boxes[:, :2]) * scales).prod(dim=1)  # [N]
    sides = boxes[:, 2:] - boxes[:, :2]  # [N, 2]
    seen = (sides.prod(dim=1) >= _LEAST_VISIBLE * full) & (sides >= _LEAST_SIDE_PX).all(dim=1)
    masks, proposals = sample.masks, sample.proposals
    if masks is not None:
        masks = _through(tv_tensors.Mask(masks[seen]), view).as_subclass(Tensor)
    if proposals is not None:
        moved = _through(tv_tensors.BoundingBoxes(proposals, format="XYXY", canvas_size=canvas), view)
        proposals = moved[(moved[:, 2:] - moved[:, :2] >= _LEAST_SIDE_PX).all(dim=1)].as_subclass(Tensor)
    return Sample(
        image=_through(tv_tensors.Image(sample.image), view).as_subclass(Tensor),
        boxes=boxes[seen].as_subclass(Tensor),
        labels=sample.labels[seen],
        masks=masks,
        proposals=proposals,
    )


def augment(preset: ScalePreset, sample: Sample, generator: Generator) -> Sample:
    """A random view of `sample`, half the time mirrored, in changed colours. If it has objects, so has the view."""
    height, width = sample.image.shape[-2:]
    view = whole_view(preset, height, width)
    for _ in range(VIEW_TRIES):
        wanted = random_view(preset, height, width, generator)
        if not len(sample.labels) or len(look(_without_pixels(sample), wanted).labels):
            view = wanted
            break
    changed = look(sample, view)
    if _uniform(0, 1, generator) < 0.5:
        changed = mirrored(changed)
    return replace(changed, image=_recoloured(changed.image, generator))


def mirrored(sample: Sample) -> Sample:
    """Left and right exchanged."""
    width = sample.image.shape[-1]
    return replace(
        sample,
        image=sample.image.flip(-1),
        boxes=_mirrored_boxes(sample.boxes, width),
        masks=None if sample.masks is None else sample.masks.flip(-1),
        proposals=None if sample.proposals is None else _mirrored_boxes(sample.proposals, width),
    )


def _mirrored_boxes(boxes: Tensor, width: int) -> Tensor:
    return torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)


def _without_pixels(sample: Sample) -> Sample:
    """The boxes alone, to try a view for nothing."""
    empty = sample.image[:0]
    return replace(sample, image=empty, masks=None, proposals=None)


def _through(tensor: InputT, view: View) -> InputT:
    if tensor.numel() == 0 and not isinstance(tensor, tv_tensors.BoundingBoxes):
        shape = (*tensor.shape[:-2], *view.size)
        return type(tensor)(tensor.new_zeros(shape))
    through: InputT = transforms.resized_crop(
        tensor, view.top, view.left, view.height, view.width, list(view.size), antialias=True
    )
    return through


def _recoloured(image: Tensor, generator: Generator) -> Tensor:
    for change in (transforms.adjust_brightness, transforms.adjust_contrast, transforms.adjust_saturation):
        image = change(image, _uniform(1 - COLOUR, 1 + COLOUR, generator))
    return image


def _uniform(low: float, high: float, generator: Generator) -> float:
    return float(torch.empty(()).uniform_(low, high, generator=generator))
