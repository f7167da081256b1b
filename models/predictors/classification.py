"""Classification: the probability of every category for an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from models.backends.graphs import ClassificationGraph
from models.images.presets import resize_and_crop
from models.manifest import AnyPreset, Preset, Task
from models.predictions import ClassScore
from models.predictor import Predictor, Selection, batches


@dataclass(frozen=True, kw_only=True)
class ClassSelection(Selection[list[ClassScore]]):
    """Which of a classifier's categories to return."""

    task: ClassVar[Task] = "classification"

    top_k: int | None = 5  # None: all
    score_threshold: float = 0.0
    categories: frozenset[str] = frozenset()


class Classifier(Predictor[ClassSelection, Tensor, list[ClassScore]]):
    """A classification network. Its output is the probability of every category, float32 [K]."""

    task: ClassVar[Task] = "classification"
    graph_type = ClassificationGraph
    finishes_quickly = True
    preset: Preset

    def __init__(
        self, module: nn.Module, *, categories: Sequence[str], preset: AnyPreset, device: torch.device | str
    ) -> None:
        assert isinstance(preset, Preset)
        super().__init__(module, categories=categories, preset=preset, device=device)

    def scores(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Returns the probabilities, float32 [K] on the CPU, for each of `images`, uint8 [3, H, W] of any size."""
        views = [resize_and_crop(self.preset, image) for image in images]
        return [row for batch in batches(views) for row in self._scores(torch.stack([views[at] for at in batch]))]

    def prepare(self, image: Tensor, selection: ClassSelection) -> list[Tensor]:  # noqa: ARG002
        """Crops the middle of the image, uint8 [C, crop, crop]."""
        return [resize_and_crop(self.preset, image)]

    def predict_prepared(self, batch: Tensor, selections: Sequence[ClassSelection]) -> list[Tensor]:  # noqa: ARG002
        """Returns the probabilities, float32 [K] on the CPU, for each of a batch, uint8 [B, C, crop, crop]."""
        return list(self._scores(batch))

    def finish(
        self,
        outputs: Sequence[Tensor],
        *,
        width: int,  # noqa: ARG002
        height: int,  # noqa: ARG002
        selection: ClassSelection,
    ) -> list[ClassScore]:
        """Returns the most probable categories, best first."""
        (scores,) = outputs
        if not selection.categories:
            return top_classes(scores, self.categories, k=selection.top_k, threshold=selection.score_threshold)
        ranked = top_classes(scores, self.categories, threshold=selection.score_threshold)
        return [score for score in ranked if score.label in selection.categories][: selection.top_k]

    def _scores(self, batch: Tensor) -> Tensor:
        scores: Tensor = self.backend.run(batch)
        return scores


def top_classes(
    scores: Tensor, categories: Sequence[str], *, k: int | None = None, threshold: float = 0.0
) -> list[ClassScore]:
    """Returns the `k` most probable categories of `scores`, float32 [K], best first, above `threshold` or equal to it.

    k: None, or a number above that of the categories, means all.
    """
    count = len(categories) if k is None else min(k, len(categories))
    values = scores.numpy()
    least = np.partition(values, -count)[-count]  # a tenth of the time of sorting a thousand
    chosen = np.flatnonzero(values >= least)
    best = chosen[np.argsort(-values[chosen], kind="stable")][:count]
    return [
        ClassScore(label=categories[index], index=index, score=value)
        for value, index in zip(values[best].tolist(), best.tolist(), strict=True)
        if value >= threshold
    ]
