"""How a detector does on one split: what its metrics and its report are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workers.training.detection.metrics import CocoScores
from workers.training.task import Evaluation


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionEvaluation(Evaluation):
    """How a network does on one split, image by image."""

    # per image: boxes (float32 [N, 4], px of the original), labels, scores, and masks as run lengths
    detections: tuple[dict[str, Any], ...]
    boxes: CocoScores
    masks: CocoScores | None
