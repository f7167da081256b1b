"""Detection: the objects in an image with their boxes, and masks and keypoints if the network finds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from models.architectures.detection_outputs import IOU_THRESHOLD, MAX_DETECTIONS, SCORE_THRESHOLD, keep_detections
from models.backends.graphs import DetectionGraph
from models.errors import NoMasks
from models.images.presets import scale, scaled_size
from models.images.resampling import enlarge
from models.images.tiling import OVERLAP, Window, merge_views, windows
from models.manifest import AnyPreset, ScalePreset, Task
from models.masks.regions import Region, encode_region, polygons_of
from models.predictions import Box, Detection, Keypoint
from models.predictor import Predictor, Selection

MaskForm = Literal["rle", "polygon", "none"]


@dataclass(frozen=True, kw_only=True)
class DetectionSelection(Selection[list[Detection]]):
    """Which of a detector's objects to return, and in which form."""

    task: ClassVar[Task] = "detection"

    score_threshold: float = SCORE_THRESHOLD
    iou_threshold: float = IOU_THRESHOLD
    max_detections: int = MAX_DETECTIONS
    categories: frozenset[str] = frozenset()
    masks: MaskForm | None = None  # None: run lengths if the network makes masks
    tile_px: int | None = None  # side of the tiles of a larger image, in its px; None: no tiles
    tile_overlap: float = OVERLAP  # least share of a tile that its neighbour covers too

    @property
    def is_tiled(self) -> bool:
        """Whether large images are cut into tiles."""
        return self.tile_px is not None

    def count_views(self, width: int, height: int) -> int:
        """Returns the number of views: the whole image, and each tile. Raises TooManyTiles."""
        return len(windows(width, height, tile_px=self.tile_px, overlap=self.tile_overlap))


@dataclass(frozen=True, kw_only=True, slots=True)
class SoftMask:
    """The part of a mask that its box covers, in pixels of the view."""

    values: Tensor  # uint8 [h, w]: 0 to 255 is a probability of 0 to 1
    left: int
    top: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewOutput:
    """The detections of a view, on the CPU, in pixels of the view."""

    boxes: Tensor  # float32 [N, 4] xyxy
    scores: Tensor  # float32 [N]
    labels: Tensor  # int64 [N], from 1
    keypoints: Tensor | None  # float32 [N, P, 3]: x, y, score
    masks: list[SoftMask] = field(default_factory=list)  # none, or one per box


class Detector(Predictor[DetectionSelection, ViewOutput, list[Detection]]):
    """A detector with torchvision's interface; its labels count from 1."""

    task: ClassVar[Task] = "detection"
    graph_type = DetectionGraph
    preset: ScalePreset

    def __init__(
        self,
        module: nn.Module,
        *,
        categories: Sequence[str],
        preset: AnyPreset,
        device: torch.device | str,
        makes_masks: bool = False,
        keypoints: Sequence[str] = (),
    ) -> None:
        """keypoints: labels of the points that the network finds of every object."""
        assert isinstance(preset, ScalePreset)
        super().__init__(module, categories=categories, preset=preset, device=device)
        self.makes_masks = makes_masks
        self.keypoints = tuple(keypoints)

    def check(self, selection: DetectionSelection) -> None:
        """Raises NoMasks."""
        if selection.masks in ("rle", "polygon") and not self.makes_masks:
            raise NoMasks(
                "This model finds boxes and makes no masks.", hint="Leave `masks` out, or ask a mask R-CNN for them."
            )

    def prepare(self, image: Tensor, selection: DetectionSelection) -> list[Tensor]:
        """The whole image and its tiles, each at the network's scale. Raises TooManyTiles."""
        return [
            scale(self.preset, image[:, at.top : at.top + at.height, at.left : at.left + at.width])
            for at in _windows(image.shape[2], image.shape[1], selection)
        ]

    def predict_prepared(self, batch: Tensor, selections: Sequence[DetectionSelection]) -> list[ViewOutput]:
        """Returns the detections of each view of a batch, uint8 [B, 3, h, w]."""
        outputs = self.backend.run(batch)
        return [self._keep(output, selection) for output, selection in zip(outputs, selections, strict=True)]

    def finish(
        self, outputs: Sequence[ViewOutput], *, width: int, height: int, selection: DetectionSelection
    ) -> list[Detection]:
        """Returns the objects in the image, best first, in its pixels."""
        frames = _windows(width, height, selection)
        boxes = torch.cat([self._on_picture(out.boxes, at) for out, at in zip(outputs, frames, strict=True)])
        boxes[:, 0::2].clamp_(0, width)
        boxes[:, 1::2].clamp_(0, height)
        scores = torch.cat([output.scores for output in outputs])
        labels = torch.cat([output.labels for output in outputs])
        views = torch.cat([torch.full_like(output.labels, number) for number, output in enumerate(outputs)])
        if len(frames) == 1:
            kept = torch.arange(len(boxes))
        else:
            kept = merge_views(boxes, scores, labels, views, frames, iou_threshold=selection.iou_threshold)
        has_area = (boxes[kept, 2:] > boxes[kept, :2]).all(dim=1)
        starts = [0]
        for output in outputs:
            starts.append(starts[-1] + len(output.boxes))
        found = []
        for index in kept[has_area][: selection.max_detections].tolist():
            view = int(views[index])
            found.append(
                self._detection(
                    outputs[view],
                    index - starts[view],
                    frames[view],
                    box=boxes[index],
                    size=(width, height),
                    masks=selection.masks,
                )
            )
        return found

    def _keep(self, output: Mapping[str, Tensor], selection: DetectionSelection) -> ViewOutput:
        """Keeps what the selection asks for, with masks cut to their boxes."""
        wanted = {name: output[name] for name in ("boxes", "scores", "labels")}
        if self.makes_masks and selection.masks != "none":
            wanted["masks"] = output["masks"]
        if self.keypoints:
            points = torch.cat([output["keypoints"][..., :2], output["keypoints_scores"][..., None]], dim=2)
            wanted["keypoints"] = points  # [N, P, 3]
        is_finite = wanted["boxes"].isfinite().all(dim=1) & wanted["scores"].isfinite()
        labels = {number for number, label in enumerate(self.categories, 1) if label in selection.categories}
        kept = keep_detections(
            {name: tensor[is_finite] for name, tensor in wanted.items()},
            score_threshold=selection.score_threshold,
            iou_threshold=selection.iou_threshold,
            max_detections=selection.max_detections,
            labels=labels,
        )
        boxes = kept["boxes"].float().cpu()  # waits for the device here
        masks = kept.get("masks")
        return ViewOutput(
            boxes=boxes,
            scores=kept["scores"].float().cpu(),
            labels=kept["labels"].cpu(),
            keypoints=kept["keypoints"].float().cpu() if self.keypoints else None,
            masks=[] if masks is None else [_cut(mask[0], box) for mask, box in zip(masks, boxes, strict=True)],
        )

    def _on_picture(self, points: Tensor, frame: Window) -> Tensor:
        """Converts `points` [..., 2n], x and y in turn, from px of the view of `frame` to px of the image."""
        vertical, horizontal = self._scale(frame)
        pairs = points.reshape(-1, 2) * points.new_tensor([horizontal, vertical])
        return pairs.add_(points.new_tensor([frame.left, frame.top])).reshape(points.shape)

    def _scale(self, frame: Window) -> tuple[float, float]:
        """Returns height and width of the frame divided by those of its view."""
        height, width = scaled_size(self.preset, frame.height, frame.width)
        return frame.height / height, frame.width / width

    def _detection(
        self,
        output: ViewOutput,
        number: int,
        frame: Window,
        *,
        box: Tensor,
        size: tuple[int, int],
        masks: MaskForm | None,
    ) -> Detection:
        label = int(output.labels[number])
        x_min, y_min, x_max, y_max = box.tolist()
        region = self._region(output.masks[number], frame) if output.masks else None
        return Detection(
            label=self.categories[label - 1],
            index=label,
            score=float(output.scores[number]),
            box=Box(x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max),
            mask=None if region is None else encode_region(region, width=size[0], height=size[1]),
            polygons=polygons_of(region) if region is not None and masks == "polygon" else (),
            keypoints=() if output.keypoints is None else self._keypoints(output.keypoints[number], frame),
        )

    def _region(self, mask: SoftMask, frame: Window) -> Region:
        """Returns the pixels of the image that the mask covers. It enlarges before it thresholds, for smooth edges."""
        vertical, horizontal = self._scale(frame)
        height, width = mask.values.shape
        rows = range(int(mask.top * vertical), min(frame.height, ceil((mask.top + height) * vertical)))
        columns = range(int(mask.left * horizontal), min(frame.width, ceil((mask.left + width) * horizontal)))
        values = enlarge(
            mask.values.numpy().astype(np.float32),
            rows=rows,
            columns=columns,
            scale=(vertical, horizontal),
            offset=(mask.top, mask.left),
        )
        return Region(pixels=values >= 127.5, left=frame.left + columns.start, top=frame.top + rows.start)

    def _keypoints(self, points: Tensor, frame: Window) -> tuple[Keypoint, ...]:
        on_picture = self._on_picture(points[:, :2], frame).tolist()
        return tuple(
            Keypoint(label=label, x=x, y=y, score=score)
            for label, (x, y), score in zip(self.keypoints, on_picture, points[:, 2].tolist(), strict=True)
        )


def _windows(width: int, height: int, selection: DetectionSelection) -> list[Window]:
    return windows(width, height, tile_px=selection.tile_px, overlap=selection.tile_overlap)


def _cut(mask: Tensor, box: Tensor) -> SoftMask:
    """Cuts `mask`, float [h, w] in [0, 1], to `box` and a pixel around it."""
    height, width = mask.shape
    left, top = (min(max(0, int(edge) - 1), side - 1) for edge, side in zip(box[:2], (width, height), strict=True))
    right, bottom = (int(edge) + 2 for edge in box[2:])
    part = mask[top : max(top + 1, bottom), left : max(left + 1, right)]
    return SoftMask(values=(part * 255).round().to(torch.uint8).cpu(), left=left, top=top)
