"""Creates the task of a run."""

from __future__ import annotations

from typing import Any

from workers.training.run_inputs import RunInputs
from workers.training.task import TrainingTask


def make_task(inputs: RunInputs) -> TrainingTask[Any, Any]:
    """Creates the task that the configuration names. Only the modules of this task are imported."""
    if inputs.config.task == "detection":
        from workers.training.detection.task import DetectionTask

        return DetectionTask(inputs)
    if inputs.config.task == "segmentation":
        from workers.training.segmentation.task import SegmentationTask

        return SegmentationTask(inputs)
    from workers.training.classification.task import ClassificationTask

    return ClassificationTask(inputs)
