"""Which task a run is."""

from __future__ import annotations

from typing import Any

from workers.training.task import Ground, TrainingTask


def make_task(ground: Ground) -> TrainingTask[Any, Any]:
    """The task of the run's configuration. What one task needs is not loaded for another."""
    if ground.config.task == "detection":
        from workers.training.detection.task import DetectionTask

        return DetectionTask(ground)
    if ground.config.task == "segmentation":
        from workers.training.segmentation.task import SegmentationTask

        return SegmentationTask(ground)
    from workers.training.classification.task import ClassificationTask

    return ClassificationTask(ground)
