"""The evaluation of a segmentation network on one split, for its metrics and its report."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from workers.training.task import Evaluation


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentationEvaluation(Evaluation):
    """The predictions of a network for one split, with K categories."""

    matrix: Tensor  # int64 [K, K], number of pixels; row: truth, column: prediction
    accuracies: tuple[float, ...]  # the fraction of correct pixels of each image
    worst: dict[int, Tensor]  # index of an image with a low accuracy -> predicted label map, uint8 [H, W]
