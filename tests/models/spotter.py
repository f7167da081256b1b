"""Networks whose answers are known: they find red and blue rectangles, so a test sees where each pixel came to lie."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from models.manifest import ScalePreset
from models.predictors.detection import Detector
from models.predictors.segmentation import Segmenter

CATEGORIES = ("red", "blue")
SCORES = {1: 0.9, 2: 0.8}
PRESET = ScalePreset(shorter_px=160, longer_px=320)
Rectangle = tuple[str, int, int, int, int]  # colour, left, top, right, bottom


def picture(width: int, height: int, *rectangles: Rectangle) -> Tensor:
    """Rectangles on grey, uint8 [3, H, W]."""
    image = torch.full((3, height, width), 128, dtype=torch.uint8)
    for colour, left, top, right, bottom in rectangles:
        rgb = torch.tensor({"red": (255, 0, 0), "blue": (0, 0, 255)}[colour], dtype=torch.uint8)
        image[:, top:bottom, left:right] = rgb[:, None, None]
    return image


class Spotter(nn.Module):
    """Finds every rectangle: torchvision's detection interface. It counts the images of each batch in `batches`."""

    def __init__(self, *, masks: bool = False, points: bool = False, scores: Sequence[float] = ()) -> None:
        """scores: of the first, second, … rectangle found, instead of one a colour."""
        super().__init__()
        self.masks, self.points = masks, points
        self.scores = scores
        self.batches: list[list[torch.Size]] = []

    def forward(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        self.batches.append([image.shape for image in images])
        return [self._find(image) for image in images]

    def _find(self, image: Tensor) -> dict[str, Tensor]:
        found = [(label, mask) for label, colour in ((1, 0), (2, 2)) for mask in _components(image, colour)]
        boxes = [_box(mask) for _, mask in found]
        given = [*self.scores, *(SCORES[label] for label, _ in found[len(self.scores) :])][: len(found)]
        output = {
            "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor([label for label, _ in found], dtype=torch.int64),
            "scores": torch.tensor(given, dtype=torch.float32),
        }
        if self.masks:
            masks = [torch.from_numpy(mask).float() for _, mask in found]
            output["masks"] = torch.stack(masks)[:, None] if masks else image.new_zeros(0, 1, *image.shape[1:])
        if self.points:
            corners = output["boxes"].reshape(-1, 2, 2)
            output["keypoints"] = torch.cat([corners, torch.ones_like(corners[..., :1])], dim=2)
            output["keypoints_scores"] = torch.full(corners.shape[:2], 5.0)
        return output


class Painter(nn.Module):
    """Says of every pixel how red, how blue, and how much of neither it is: torchvision's segmentation interface."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        red, _, blue = images.unbind(1)  # of mean 0.5 and deviation 0.5: from -1 to 1
        return {"out": 10 * torch.stack([torch.full_like(red, 0.25), red - blue, blue - red], dim=1)}


def detector(*, preset: ScalePreset = PRESET, masks: bool = False, points: bool = False) -> Detector:
    """A Spotter as it is served."""
    return Detector(
        Spotter(masks=masks, points=points),
        categories=CATEGORIES,
        preset=preset,
        device="cpu",
        makes_masks=masks,
        keypoints=("upper left", "lower right") if points else (),
    )


def segmenter(*, preset: ScalePreset = PRESET) -> Segmenter:
    """A Painter as it is served."""
    half = ScalePreset.model_validate({**preset.model_dump(), "mean": (0.5,) * 3, "std": (0.5,) * 3})
    return Segmenter(Painter(), categories=("__background__", *CATEGORIES), preset=half, device="cpu")


def _components(image: Tensor, colour: int) -> list[np.ndarray[tuple[int, int], np.dtype[np.bool_]]]:
    others = [channel for channel in range(3) if channel != colour]
    is_coloured = ((image[colour] - image[others].amax(dim=0)) > 0.5).numpy().astype(np.uint8)
    count, labels = cv2.connectedComponents(is_coloured, connectivity=4)
    return [labels == number for number in range(1, count)]


def _box(mask: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
