"""Resolving fine-tuning jobs: names become versions and defaults become values, for all tasks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from models.architectures import catalog
from models.store.registry import Registry
from tests.training.runs import a_dataset
from tests.training.shape_runs import a_detection_dataset, a_segmentation_dataset
from workers.configs.fine_tune import FineTuneConfig, Hyperparameters, ResolvedFineTune
from workers.configs.recipes import _RECIPES
from workers.configs.resolve_fine_tune import resolve_fine_tune
from workers.datasets.store import DatasetStore
from workers.errors import InvalidJob


def resolve(home: Path, **wanted: Any) -> ResolvedFineTune:
    registry = Registry(home / "registry", reserved_names=catalog.names())
    config = FineTuneConfig.model_validate({"dataset": "shapes", **wanted})
    return resolve_fine_tune(config, datasets=DatasetStore(home / "datasets"), registry=registry)


def test_small_detector_from_scratch_gets_the_measured_recipe(tmp_path: Path) -> None:
    a_detection_dataset(tmp_path)
    job = resolve(tmp_path, model="yolo")
    knobs = job.hyperparameters

    assert (job.task, job.strategy, job.base) == ("detection", "from_scratch", None)
    assert job.options == {"variant": "modern", "backbone": "mobilenet_v3_small"}
    assert (knobs.epochs, knobs.batch_size, knobs.optimizer, knobs.learning_rate) == (40, 8, "adamw", 0.001)
    assert (knobs.warmup_steps, knobs.max_gradient_norm) == (1, 10)  # the epoch of eight images has one step


def test_given_values_win_over_the_recipe(tmp_path: Path) -> None:
    a_detection_dataset(tmp_path)
    knobs = {"epochs": 3, "batch_size": 2, "optimizer": "sgd", "warmup_steps": 0, "max_gradient_norm": 0}
    job = resolve(tmp_path, model="yolo", variant="v1", backbone="resnet18", hyperparameters=knobs)

    assert job.options == {"variant": "v1", "backbone": "resnet18"}
    assert job.hyperparameters.model_dump(include=set(knobs)) == knobs


def test_backbone_weights_resolve_to_a_torchvision_classifier(tmp_path: Path) -> None:
    a_detection_dataset(tmp_path)
    job = resolve(tmp_path, model="yolo", backbone="resnet18", backbone_weights="DEFAULT")

    assert (job.base, job.backbone_base, job.strategy) == (None, "resnet18.IMAGENET1K_V1", "fine_tune")


@pytest.mark.parametrize("name", ["epochs", "batch_size", "optimizer"])
def test_description_of_a_field_has_the_defaults_of_all_recipes(name: str) -> None:
    description = str(Hyperparameters.model_fields[name].description)

    assert set(re.findall(r"[a-z]+|\d+", description)) >= {str(each[name]) for each in _RECIPES.values()}


@pytest.mark.parametrize(
    ("wanted", "field", "words"),
    [
        ({"model": "resnet18"}, "model", "is for detection"),
        ({"model": "fcn_resnet50"}, "model", "is for detection"),
        ({"model": "maskrcnn_fpn"}, "model", "has only boxes"),
        ({"model": "keypointrcnn_resnet50_fpn"}, "model", "cannot be trained"),
        ({"model": "yolo", "variant": "v9"}, "variant", "cannot be 'v9'"),
        ({"model": "yolo", "backbone": "vgg99"}, "backbone", "cannot be 'vgg99'"),
        ({"model": "ssd300_vgg16", "weights": "none", "variant": "v1"}, "variant", "has no option"),
        ({"model": "yolo", "backbone_weights": "IMAGENET1K_V9"}, "backbone_weights", "no model 'IMAGENET1K_V9'"),
        (
            {"model": "fasterrcnn_resnet50_fpn", "backbone_weights": "DEFAULT"},
            "backbone_weights",
            "includes the weights of its backbone",
        ),
        ({"model": "yolo", "strategy": "feature_extraction"}, "strategy", "needs weights"),
        (
            {"model": "yolo", "strategy": "from_scratch", "backbone_weights": "DEFAULT"},
            "strategy",
            "cannot start from",
        ),
        ({"model": "yolo", "hyperparameters": {"image_size_px": 16}}, "hyperparameters.image_size_px", "16 x 16"),
    ],
)
def test_invalid_job_is_refused_with_the_field_and_a_hint(
    tmp_path: Path, wanted: dict[str, Any], field: str, words: str
) -> None:
    a_detection_dataset(tmp_path, has_masks=False)
    with pytest.raises(InvalidJob, match=words) as caught:
        resolve(tmp_path, **wanted)
    assert caught.value.field == field
    assert caught.value.hint


def test_model_of_another_task_is_refused_with_fitting_models(tmp_path: Path) -> None:
    a_dataset(tmp_path, name="circles")
    a_segmentation_dataset(tmp_path)
    for name, fitting in (("circles", "resnet18"), ("shapes", "deeplabv3_resnet50")):
        with pytest.raises(InvalidJob) as caught:
            resolve(tmp_path, model="yolo", dataset=name)
        assert "architectures?task=" in str(caught.value.hint)
        assert fitting in catalog.names(DatasetStore(tmp_path / "datasets").resolve(name).info.task)
