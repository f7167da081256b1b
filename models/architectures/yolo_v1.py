"""YOLO as it was: You Only Look Once (Redmon et al. 2016).

The image, stretched to a square, is cut into S x S cells. The cell that holds the middle of an object answers for
it, with P boxes and one set of probabilities for the categories. So there is one object a cell at most, which is what
crowds of small things break; `yolo_modern` shows what came of that.

Changed from the paper: the features come from one of torchvision's networks, and the layer that is linear over the
whole image is 512 wide instead of 4096.

B images, S x S cells, P boxes a cell, N objects, K categories.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.architectures.backbones import feature_maps
from models.architectures.detector_parts import best_detections, check_targets, normalised

CELL_PX = 64  # of the square: 7 x 7 cells of 448 px, as in the paper
BOXES_OF_A_CELL = 2
_STRIDE = 32
_WIDTH = 512
_FIRST_BOX = (0.5, 0.5, 0.5, 0.5, 0.0)  # in the cell's middle, a fourth of the image's sides, without confidence
_COORDINATE_WEIGHT = 5.0  # section 2.2: boxes count more,
_NO_OBJECT_WEIGHT = 0.5  # and the many boxes without an object less


class YoloV1(nn.Module):
    """The detector, with torchvision's interface.

    grid: S; images of any size are stretched to S * 64 px.
    """

    def __init__(self, *, backbone: str, num_categories: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.num_categories = num_categories
        self.backbone, (channels,) = feature_maps(backbone, (_STRIDE,))
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, _WIDTH // 2, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(_WIDTH // 2),
            nn.LeakyReLU(0.1),
            nn.Flatten(),
        )
        self.hidden = nn.Sequential(nn.Linear(_WIDTH // 2 * grid**2, _WIDTH), nn.LeakyReLU(0.1), nn.Dropout(0.5))
        self.answers = nn.Linear(_WIDTH, grid**2 * (BOXES_OF_A_CELL * 5 + num_categories))
        nn.init.normal_(self.answers.weight, std=0.01)
        first = [*_FIRST_BOX * BOXES_OF_A_CELL, *[1 / num_categories] * num_categories]
        with torch.no_grad():
            self.answers.bias.copy_(torch.tensor(first).repeat(grid**2))

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """images: float32 [3, h, w] in [0, 1] each. Losses of `targets` in training mode, else detections."""
        (features,) = self.backbone(torch.cat([self._stretched(image) for image in images])).values()
        answers = self.answers(self.hidden(self.convolutions(features))).float()  # [B, S * S * (5 P + K)]
        per_cell = answers.view(len(images), self.grid**2, -1)  # [B, S * S, 5 P + K]
        # x and y in cells from the cell's corner, square roots of width and height in images, confidence.
        boxes = per_cell[..., : 5 * BOXES_OF_A_CELL].unflatten(2, (BOXES_OF_A_CELL, 5))  # [B, S * S, P, 5]
        probabilities = per_cell[..., 5 * BOXES_OF_A_CELL :]  # [B, S * S, K]
        if self.training:
            return self._losses(boxes, probabilities, images, check_targets(images, targets))
        return [
            self._detections(of_boxes, of_probabilities, image)
            for of_boxes, of_probabilities, image in zip(boxes, probabilities, images, strict=True)
        ]

    def _stretched(self, image: Tensor) -> Tensor:
        side = self.grid * CELL_PX
        return functional.interpolate(normalised(image)[None], (side, side), mode="bilinear", antialias=True)

    def _detections(self, boxes: Tensor, probabilities: Tensor, image: Tensor) -> dict[str, Tensor]:
        height, width = image.shape[-2:]
        # Section 2: the score of a box for a category is its confidence times the cell's probability.
        scores = boxes[..., 4:].clamp(0, 1) * probabilities[:, None].clamp(0, 1)  # [S * S, P, K]
        corners = self._corners(boxes) * boxes.new_tensor((width, height, width, height))  # [S * S, P, 4]
        return best_detections(corners.flatten(0, 1), scores.flatten(0, 1), height=height, width=width)

    def _corners(self, boxes: Tensor) -> Tensor:
        """xyxy in images, float32 [..., S * S, P, 4], of answered boxes [..., S * S, P, 5]."""
        rows_and_columns = torch.cartesian_prod(*[torch.arange(self.grid, device=boxes.device)] * 2)  # [S * S, 2]
        middles = (boxes[..., :2] + rows_and_columns.flip(1)[:, None]) / self.grid
        half = boxes[..., 2:4].square() / 2
        return torch.cat((middles - half, middles + half), dim=-1)

    def _losses(
        self,
        boxes: Tensor,
        probabilities: Tensor,
        images: Sequence[Tensor],
        targets: Sequence[dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Equation 3, an image on average."""
        wanted = boxes.detach().clone()  # where nothing is asked for there is no error,
        wanted[..., 4] = 0.0  # but without an object confidence should be 0
        weights = torch.zeros_like(boxes)
        weights[..., 4] = _NO_OBJECT_WEIGHT
        wanted_probabilities = probabilities.detach().clone()
        corners = self._corners(boxes.detach())
        for index, (image, target) in enumerate(zip(images, targets, strict=True)):
            height, width = image.shape[-2:]
            normed = target["boxes"] / boxes.new_tensor((width, height, width, height))  # in images
            cells, objects = objects_of_cells(normed, self.grid)
            if not len(cells):
                continue
            overlaps = paired_overlaps(corners[index, cells], normed[objects])  # [N, P]
            best = overlaps.argmax(1)  # the box that is responsible
            wanted[index, cells, best] = torch.cat(
                (_coordinates(normed[objects], cells, self.grid), overlaps.amax(1, keepdim=True)), dim=1
            )
            weights[index, cells, best] = weights.new_tensor([_COORDINATE_WEIGHT] * 4 + [1.0])
            labels = functional.one_hot(target["labels"][objects] - 1, self.num_categories)
            wanted_probabilities[index, cells] = labels.to(probabilities.dtype)
        errors = weights * (boxes - wanted).square() / len(images)
        return {
            "loss_boxes": errors[..., :4].sum(),
            "loss_confidence": errors[..., 4].sum(),
            "loss_categories": (probabilities - wanted_probabilities).square().sum() / len(images),
        }


def objects_of_cells(boxes: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Cells that hold the middle of an object, and that object's index, both int64 [n]; of several the largest.

    boxes: float32 [N, 4] xyxy in images.
    """
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    column, row = (middles * grid).long().clamp(0, grid - 1).unbind(1)
    sizes = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    owner: dict[int, int] = {}
    cells = (row * grid + column).tolist()
    for index in sizes.argsort(stable=True).tolist():
        owner[cells[index]] = index  # a larger one replaces a smaller
    return (
        torch.tensor(list(owner), dtype=torch.int64, device=boxes.device),
        torch.tensor(list(owner.values()), dtype=torch.int64, device=boxes.device),
    )


def paired_overlaps(predicted: Tensor, boxes: Tensor) -> Tensor:
    """IoU of each of `predicted`, float32 [N, P, 4], with its row of `boxes`, [N, 4]: float32 [N, P]."""
    corner = torch.maximum(predicted[..., :2], boxes[:, None, :2])
    opposite = torch.minimum(predicted[..., 2:], boxes[:, None, 2:])
    shared = (opposite - corner).clamp(min=0).prod(2)
    areas = (predicted[..., 2:] - predicted[..., :2]).prod(2), (boxes[:, 2:] - boxes[:, :2]).prod(1)[:, None]
    return shared / (areas[0] + areas[1] - shared).clamp(min=torch.finfo(shared.dtype).tiny)


def _coordinates(boxes: Tensor, cells: Tensor, grid: int) -> Tensor:
    """What the cells should answer for `boxes`, float32 [n, 4] xyxy in images: x, y, sqrt(w), sqrt(h)."""
    middles, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    corners = torch.stack((cells % grid, cells // grid), dim=1)
    return torch.cat((middles * grid - corners, sides.sqrt()), dim=1)
