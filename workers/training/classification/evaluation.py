"""The evaluation of a classifier on one split, for its metrics and its report."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from workers.training.task import Evaluation


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassificationEvaluation(Evaluation):
    """The predictions of a network for the N images of one split, with K categories."""

    targets: Tensor  # int64 [N]
    scores: Tensor  # float32 [N, K], probabilities
