"""Recipes: the defaults of hyperparameters, by task and strategy. docs/ has the measurements. Needs no torch."""

from __future__ import annotations

from typing import Any

from models.manifest import Task
from workers.configs.fine_tune import Hyperparameters, ResolvedHyperparameters, Strategy

_MAX_WARM_UP_STEPS = 500
_OFF = {"warmup_steps": 0, "max_gradient_norm": 0.0}

# From random weights, AdamW tolerates a wrong learning rate, and training needs many epochs.
_RECIPES: dict[tuple[Task, bool], dict[str, Any]] = {  # (task, True for random weights) -> defaults
    ("classification", True): {"epochs": 10, "batch_size": 32, "optimizer": "sgd", **_OFF},
    ("classification", False): {"epochs": 10, "batch_size": 32, "optimizer": "sgd", **_OFF},
    ("detection", True): {"epochs": 40, "batch_size": 8, "optimizer": "adamw", "max_gradient_norm": 10.0},
    ("detection", False): {"epochs": 10, "batch_size": 4, "optimizer": "sgd", "max_gradient_norm": 10.0},
    ("segmentation", True): {"epochs": 40, "batch_size": 8, "optimizer": "adamw", "max_gradient_norm": 10.0},
    ("segmentation", False): {"epochs": 10, "batch_size": 4, "optimizer": "adamw", "max_gradient_norm": 10.0},
}


SMALL_DATA_IMAGES = 2000
# With these, yolo learns the blood cells of BCCD from random weights in minutes on two cores: see docs/detectors.md.
_SMALL_DATA_OPTIONS = {
    "yolo": {"backbone": "mobilenet_v3_small"},
    "segnet": {"backbone": "vgg11_bn", "width": "quarter"},
}


def small_data_options(architecture: str, *, train_images: int) -> dict[str, str]:
    """Returns the options for an architecture that starts from random weights; smaller ones for a small dataset.

    Empty means the defaults of the architecture.
    """
    return _SMALL_DATA_OPTIONS.get(architecture, {}) if train_images < SMALL_DATA_IMAGES else {}


def complete(
    wanted: Hyperparameters, *, task: Task, strategy: Strategy, image_size_px: int, train_images: int
) -> ResolvedHyperparameters:
    """Returns `wanted` with a value for every field that it leaves open."""
    recipe = _RECIPES[task, strategy == "from_scratch"]
    values = {name: value for name, value in wanted.model_dump().items() if value is not None}
    values = {**recipe, **values, "image_size_px": image_size_px}
    values.setdefault("learning_rate", _learning_rate(task, strategy, values["optimizer"]))
    values.setdefault("warmup_steps", min(_MAX_WARM_UP_STEPS, -(-train_images // values["batch_size"])))
    return ResolvedHyperparameters.model_validate(values)


def _learning_rate(task: Task, strategy: Strategy, optimizer: str) -> float:
    rate = 0.001 if optimizer == "adamw" else 0.01
    if strategy == "fine_tune" and task == "classification":
        rate /= 10  # large steps would destroy what the base weights have learned
    if strategy == "fine_tune" and task != "classification" and optimizer == "adamw":
        rate /= 10
    return rate
