"""The evaluation of a detector on one split, for its metrics and its report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workers.training.detection.metrics import CocoScores
from workers.training.task import Evaluation


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionEvaluation(Evaluation):
    """The detections of a network for one split, and their scores."""

    # per image: boxes (float32 [N, 4], pixels of the original), labels, scores, and masks as run lengths
    detections: tuple[dict[str, Any], ...]
    boxes: CocoScores
    masks: CocoScores | None
