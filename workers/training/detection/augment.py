"""Random changes to an image together with its boxes and masks. Every random number comes from the given generator.

Shapes: N objects, n of them visible in a view, P proposals, h x w pixels of the image or of the view.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor
from torchvision import tv_tensors

from models.manifest import ScalePreset
from models.masks.coco_masks import decode_mask
from workers.training.views import View, apply_view, jitter_colours, random_view, uniform, whole_view

VIEW_TRIES = 8
_MIN_VISIBLE = 0.35  # an object stays if the crop contains this fraction of its box
_MIN_SIDE_PX = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedMasks:
    """The masks of an image as run lengths. They are decoded one at a time, because 1,000 masks take gigabytes."""

    counts: tuple[str, ...]
    height: int
    width: int

    def apply_view(self, view: View, visible: Tensor) -> Tensor:
        """Applies `view` to the masks at `visible`, bool [N]: uint8 [n, h, w]."""
        viewed = [
            apply_view(tv_tensors.Mask(torch.from_numpy(decode_mask(counts, self.height, self.width))[None]), view)
            for counts, is_visible in zip(self.counts, visible.tolist(), strict=True)
            if is_visible
        ]
        return torch.cat(viewed).as_subclass(Tensor) if viewed else torch.zeros((0, *view.size), dtype=torch.uint8)


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionSample:
    """An image with its objects; boxes, masks and proposals are in pixels of the image."""

    image: Tensor  # uint8 [3, h, w]
    boxes: Tensor  # float32 [N, 4], xyxy
    labels: Tensor  # int64 [N]; 1 is the first category, 0 is background
    masks: Tensor | EncodedMasks | None = None  # uint8 [N, h, w], 0 or 1
    proposals: Tensor | None = None  # float32 [P, 4], xyxy


def view_sample(sample: DetectionSample, view: View) -> DetectionSample:
    """Applies `view` to `sample`. An object of which too little is visible is dropped."""
    canvas = (sample.image.shape[-2], sample.image.shape[-1])
    boxes = apply_view(tv_tensors.BoundingBoxes(sample.boxes, format="XYXY", canvas_size=canvas), view)
    scales = boxes.new_tensor([view.size[1] / view.width, view.size[0] / view.height])  # x, y
    full_areas = ((sample.boxes[:, 2:] - sample.boxes[:, :2]) * scales).prod(dim=1)  # [N]
    sides = boxes[:, 2:] - boxes[:, :2]  # [N, 2]
    visible = (sides.prod(dim=1) >= _MIN_VISIBLE * full_areas) & (sides >= _MIN_SIDE_PX).all(dim=1)  # [N]
    masks, proposals = sample.masks, sample.proposals
    if isinstance(masks, EncodedMasks):
        masks = masks.apply_view(view, visible)
    elif masks is not None:
        masks = apply_view(tv_tensors.Mask(masks[visible]), view).as_subclass(Tensor)
    if proposals is not None:
        viewed = apply_view(tv_tensors.BoundingBoxes(proposals, format="XYXY", canvas_size=canvas), view)
        proposals = viewed[(viewed[:, 2:] - viewed[:, :2] >= _MIN_SIDE_PX).all(dim=1)].as_subclass(Tensor)
        if not len(proposals):  # the network needs at least one: the whole view
            proposals = torch.tensor([[0.0, 0.0, view.size[1], view.size[0]]])
    return DetectionSample(
        image=apply_view(tv_tensors.Image(sample.image), view).as_subclass(Tensor),
        boxes=boxes[visible].as_subclass(Tensor),
        labels=sample.labels[visible],
        masks=masks,
        proposals=proposals,
    )


def augment(preset: ScalePreset, sample: DetectionSample, generator: Generator) -> DetectionSample:
    """Returns a random view of `sample`, mirrored half the time, with other colours.

    If the image has objects, at least one of them is visible in the view.
    """
    height, width = sample.image.shape[-2:]
    view = whole_view(preset, height, width)
    for _ in range(VIEW_TRIES):
        candidate = random_view(preset, height, width, generator)
        if not len(sample.labels) or len(view_sample(_without_pixels(sample), candidate).labels):
            view = candidate
            break
    changed = view_sample(sample, view)
    if uniform(0, 1, generator) < 0.5:
        changed = mirrored(changed)
    return replace(changed, image=jitter_colours(changed.image, generator))


def mirrored(sample: DetectionSample) -> DetectionSample:
    """Returns the mirror image of `sample`: left and right are exchanged."""
    width = sample.image.shape[-1]
    return replace(
        sample,
        image=sample.image.flip(-1),
        boxes=_mirrored_boxes(sample.boxes, width),
        masks=sample.masks.flip(-1) if isinstance(sample.masks, Tensor) else sample.masks,
        proposals=None if sample.proposals is None else _mirrored_boxes(sample.proposals, width),
    )


def _mirrored_boxes(boxes: Tensor, width: int) -> Tensor:
    return torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)


def _without_pixels(sample: DetectionSample) -> DetectionSample:
    """Returns only the boxes of `sample`, so that trying a view is cheap."""
    empty = sample.image[:0]
    return replace(sample, image=empty, masks=None, proposals=None)
