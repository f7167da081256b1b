"""Random changes to a picture together with its boxes and masks.

Every random number comes from the generator that is passed in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor
from torchvision import tv_tensors

from models.manifest import ScalePreset
from models.masks.coco_masks import decode_mask
from workers.training.views import View, random_view, recoloured, through_view, uniform, whole_view

VIEW_TRIES = 8
_LEAST_VISIBLE = 0.35  # share of an object's box that a crop must leave
_LEAST_SIDE_PX = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedMasks:
    """Masks of a whole picture as run lengths: decoded one at a time, for a thousand take gigabytes."""

    counts: tuple[str, ...]
    height: int
    width: int

    def seen_through(self, view: View, seen: Tensor) -> Tensor:
        """Those at `seen`, bool [N], through `view`: uint8 [n, h, w]."""
        shown = [
            through_view(tv_tensors.Mask(torch.from_numpy(decode_mask(counts, self.height, self.width))[None]), view)
            for counts, is_seen in zip(self.counts, seen.tolist(), strict=True)
            if is_seen
        ]
        return torch.cat(shown).as_subclass(Tensor) if shown else torch.zeros((0, *view.size), dtype=torch.uint8)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A picture and what is on it, in its pixels."""

    image: Tensor  # uint8 [3, h, w]
    boxes: Tensor  # float32 [N, 4], xyxy
    labels: Tensor  # int64 [N], from 1
    masks: Tensor | EncodedMasks | None = None  # uint8 [N, h, w], 0 or 1
    proposals: Tensor | None = None  # float32 [P, 4], xyxy


def look(sample: Sample, view: View) -> Sample:
    """What `view` shows of `sample`. Objects of which too little is left are left out."""
    canvas = (sample.image.shape[-2], sample.image.shape[-1])
    boxes = through_view(tv_tensors.BoundingBoxes(sample.boxes, format="XYXY", canvas_size=canvas), view)
    scales = boxes.new_tensor([view.size[1] / view.width, view.size[0] / view.height])  # x, y
    full = ((sample.boxes[:, 2:] - sample.boxes[:, :2]) * scales).prod(dim=1)  # [N]
    sides = boxes[:, 2:] - boxes[:, :2]  # [N, 2]
    seen = (sides.prod(dim=1) >= _LEAST_VISIBLE * full) & (sides >= _LEAST_SIDE_PX).all(dim=1)
    masks, proposals = sample.masks, sample.proposals
    if isinstance(masks, EncodedMasks):
        masks = masks.seen_through(view, seen)
    elif masks is not None:
        masks = through_view(tv_tensors.Mask(masks[seen]), view).as_subclass(Tensor)
    if proposals is not None:
        moved = through_view(tv_tensors.BoundingBoxes(proposals, format="XYXY", canvas_size=canvas), view)
        proposals = moved[(moved[:, 2:] - moved[:, :2] >= _LEAST_SIDE_PX).all(dim=1)].as_subclass(Tensor)
        if not len(proposals):  # all of the view is one then
            proposals = torch.tensor([[0.0, 0.0, view.size[1], view.size[0]]])
    return Sample(
        image=through_view(tv_tensors.Image(sample.image), view).as_subclass(Tensor),
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
    if uniform(0, 1, generator) < 0.5:
        changed = mirrored(changed)
    return replace(changed, image=recoloured(changed.image, generator))


def mirrored(sample: Sample) -> Sample:
    """Left and right exchanged."""
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


def _without_pixels(sample: Sample) -> Sample:
    """The boxes alone, to try a view for nothing."""
    empty = sample.image[:0]
    return replace(sample, image=empty, masks=None, proposals=None)
