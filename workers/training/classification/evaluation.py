"""How a classifier does on one split: what its metrics and its report are made of."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from workers.training.task import Evaluation


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassificationEvaluation(Evaluation):
    """How a network does on one split, image by image."""

    targets: Tensor  # int64 [N]
    scores: Tensor  # float32 [N, K], probabilities
