"""Which metric decides between epochs, and between a new version and the one in production. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from models.manifest import Task

LOSS = "val/loss"  # the only metric of which less is better
_CHOICES: Mapping[Task, tuple[str, ...]] = {  # the first is the default
    "classification": ("val/top1", LOSS, "val/f1", "val/top5"),
    "detection": (
        "val/map",
        LOSS,
        "val/map50",
        "val/map75",
        "val/mar100",
        "val/mask_map",
        "val/mask_map50",
        "val/mask_map75",
    ),
    "segmentation": ("val/miou", LOSS, "val/pixel_accuracy"),
}


def default_metric(task: Task) -> str:
    """The metric that decides if a job names none."""
    return _CHOICES[task][0]


def selection_metrics(task: Task, *, categories: Sequence[str], has_masks: bool) -> tuple[str, ...]:
    """The metrics that a job may choose, the default first.

    has_masks: the network makes masks, and the dataset has them.
    """
    return tuple(
        name
        for name in _CHOICES[task]
        if (has_masks or "mask_" not in name) and (len(categories) > 5 or name != "val/top5")
    )


def promotion_metric(task: Task, selection_metric: str) -> str:
    """The metric that compares two versions: the losses of two detectors mean different things, so their AP decides."""
    return default_metric(task) if task == "detection" and selection_metric == LOSS else selection_metric


def is_better(metric: str, new: float, old: float) -> bool:
    """True if the value `new` of `metric` is better than `old`."""
    return new < old if metric == LOSS else new > old
