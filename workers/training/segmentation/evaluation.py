"""How a segmentation network does on one split: what its metrics and its report are made of."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from workers.training.task import Evaluation


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentationEvaluation(Evaluation):
    """How a network does on one split."""

    matrix: Tensor  # int64 [K, K], pixels; row: truth, column: prediction
    accuracies: tuple[float, ...]  # of each image: its share of right pixels
    worst: dict[int, Tensor]  # predicted maps, uint8 [H, W], of the images with the least of them
