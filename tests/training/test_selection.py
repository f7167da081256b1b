"""Which epoch is best, which metric decides, and which models `if_better` never promotes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.architectures.catalog import build
from models.manifest import Task
from models.store.registry import Registry
from tests.training.runs import a_dataset, a_run
from tests.training.shape_runs import (
    a_detection_config,
    a_detection_dataset,
)
from tests.workers.jobs_builders import a_config
from workers.configs.fine_tune import FineTuneConfig
from workers.configs.resolve_fine_tune import resolve_fine_tune
from workers.configs.selection import selection_metrics
from workers.datasets.store import DatasetStore
from workers.errors import InvalidJob
from workers.run_directory import RunDirectory
from workers.supervision.publishing import publish
from workers.training.classification.task import ClassificationTask, evaluate_logits
from workers.training.detection.metrics import CategoryScore
from workers.training.detection.shared_pass import shared_pass
from workers.training.detection.task import DetectionTask
from workers.training.run import train_run
from workers.training.run_inputs import make_run_inputs
from workers.training.weakness import weak_classifier, weak_detector, weak_segmenter

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def scripted(patch: pytest.MonkeyPatch, *evaluations: dict[str, float]) -> list[int]:
    """Gives the epochs of a run these metrics. Returns a list that counts the evaluations."""
    calls: list[int] = []
    real = ClassificationTask.evaluate

    def evaluate(self: ClassificationTask, module: nn.Module) -> Any:
        calls.append(1)
        evaluation = real(self, module)
        evaluation.metrics.update(evaluations[len(calls) - 1])
        return evaluation

    patch.setattr(ClassificationTask, "evaluate", evaluate)
    return calls


def best_of(run: RunDirectory) -> tuple[int, str]:
    result = run.read_result()
    assert result is not None
    return result.best_epoch, result.decisive_metric


@pytest.mark.parametrize(("metric", "best"), [("val/top1", 2), ("val/loss", 3), ("val/f1", 1), (None, 2)], ids=str)
def test_selection_metric_chooses_the_best_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str | None, best: int
) -> None:
    scripted(
        monkeypatch,
        {"val/top1": 0.5, "val/loss": 0.8, "val/f1": 0.9},
        {"val/top1": 0.9, "val/loss": 0.7, "val/f1": 0.5},
        {"val/top1": 0.7, "val/loss": 0.2, "val/f1": 0.7},
    )
    config = a_config(dataset=a_dataset(tmp_path), selection_metric=metric, hyperparameters={"epochs": 3})
    run = a_run(tmp_path, config)
    train_run(run)

    assert best_of(run) == (best, metric or "val/top1")


@pytest.mark.parametrize(("losses", "best"), [((0.5, 0.3, 0.4), 2), ((0.3, 0.5, 0.4), 1), ((0.4, 0.4, 0.4), 1)])
def test_tie_of_the_best_epoch_goes_to_the_smaller_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, losses: tuple[float, ...], best: int
) -> None:
    scripted(monkeypatch, *({"val/top1": 0.75, "val/loss": loss} for loss in losses))
    run = a_run(tmp_path, a_config(dataset=a_dataset(tmp_path), hyperparameters={"epochs": 3}))
    train_run(run)

    assert best_of(run) == (best, "val/top1")


def test_best_weights_are_evaluated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = scripted(monkeypatch, {"val/top1": 0.9}, {"val/top1": 0.5})
    run = a_run(tmp_path, a_config(dataset=a_dataset(tmp_path)))
    train_run(run)

    result = run.read_result()
    assert result is not None
    assert (len(calls), result.best_epoch, result.metrics["val/top1"]) == (2, 1, 0.9)
    assert json.loads((run.report / "report.json").read_text())["metrics"]["val/top1"] == 0.9


def test_stopped_epoch_is_not_drawn_as_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run(tmp_path, a_config(dataset=a_dataset(tmp_path), hyperparameters={"epochs": 50}))
    run.stop_request.touch()
    train_run(run)

    (line,) = [line for line in run.read_metrics() if "val/loss" in line.metrics]
    assert line.epoch == 1
    assert line.fraction == 1 / 4  # 32 training images in batches of 8
    events = [json.loads(text) for text in run.events.read_text().splitlines()]
    (shown,) = [event["data"]["fraction"] for event in events if event["type"] == "metrics"]
    assert shown == 1 / 4


@pytest.mark.parametrize("task", ["classification", "detection", "segmentation"])
def test_only_metrics_that_a_run_has_can_be_chosen(task: Task) -> None:
    few = selection_metrics(task, categories=("a", "b"), has_masks=False)
    many = selection_metrics(task, categories=tuple("abcdef"), has_masks=True)

    assert "val/loss" in few
    assert set(few) <= set(many)
    assert not any("mask" in name or "top5" in name for name in few)
    assert ("val/top5" in many) == (task == "classification")
    assert ("val/mask_map" in many) == (task == "detection")


@pytest.mark.parametrize("metric", ["val/map", "val/top5", "top1", "val/mask_map", "train/loss", ""])
def test_other_metric_is_refused_with_the_choices(tmp_path: Path, metric: str) -> None:
    a_dataset(tmp_path)
    wanted = FineTuneConfig(model="garment_classifier", dataset="shapes", selection_metric=metric)
    stores = {"datasets": DatasetStore(tmp_path / "datasets"), "registry": Registry(tmp_path / "registry")}
    if not metric:
        assert resolve_fine_tune(wanted, **stores).selection_metric == "val/top1"  # type: ignore[arg-type]
        return
    with pytest.raises(InvalidJob, match="no metric") as caught:
        resolve_fine_tune(wanted, **stores)  # type: ignore[arg-type]
    assert caught.value.field == "selection_metric"
    assert caught.value.hint == "Use val/top1, val/loss or val/f1, or leave it out for val/top1."


@pytest.mark.parametrize(
    ("metric", "new", "old", "promoted"),
    [
        ("val/top1", 0.9, 0.8, True),
        ("val/top1", 0.8, 0.9, False),
        ("val/loss", 0.8, 0.9, True),
        ("val/loss", 0.9, 0.8, False),
        ("val/loss", 0.8, 0.8, False),
    ],
)
def test_metric_of_the_job_compares_with_production(
    tmp_path: Path, metric: str, new: float, old: float, promoted: bool
) -> None:
    config = a_config(dataset=a_dataset(tmp_path), selection_metric=metric, hyperparameters={"epochs": 1})
    registry = Registry(tmp_path / "registry")
    outcomes = []
    for number, value in enumerate((old, new)):
        run = a_run(tmp_path, config, job_id=f"job-{number}")
        train_run(run)
        result = run.read_result()
        assert result is not None
        comparison = result.comparison
        if comparison is not None:
            comparison = comparison.model_copy(update={"metrics": {metric: old}})
        changes = {"metrics": {metric: value}, "weakness": None, "comparison": comparison}
        outcomes.append(publish(run, run.read_config(), result.model_copy(update=changes), registry, now=NOW).promoted)

    assert outcomes == [True, promoted]


@pytest.mark.parametrize(("promote", "promoted"), [("if_better", False), ("always", True), ("never", False)])
def test_model_that_answers_one_category_is_never_promoted_by_if_better(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, promote: str, promoted: bool
) -> None:
    def constant(images: Tensor) -> Tensor:
        return torch.tensor([[3.0, 0.0]]).repeat(len(images), 1)

    run = a_run(tmp_path, a_config(dataset=a_dataset(tmp_path), promote=promote, hyperparameters={"epochs": 1}))
    real = ClassificationTask.evaluate

    def evaluate(self: ClassificationTask, module: nn.Module) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "forward", constant)
            return real(self, module)

    monkeypatch.setattr(ClassificationTask, "evaluate", evaluate)
    train_run(run)
    result = run.read_result()
    assert result is not None
    published = publish(run, run.read_config(), result, Registry(tmp_path / "registry"), now=NOW)

    words = "It answers 'circle' for every image, although the split has 2 categories."
    assert json.loads((run.report / "report.json").read_text())["weakness"] == words
    assert published.weakness == words
    assert words in run.events.read_text()
    assert published.promoted is promoted
    assert (words in published.promotion) == (promote == "if_better")


@pytest.mark.parametrize(
    ("matrix", "weakness"),
    [
        ([[5, 0], [5, 0]], "It answers 'a' for every image"),
        ([[90, 0], [10, 0]], "It answers 'a' for every image"),  # a top-1 of 0.9
        ([[80, 10], [5, 5]], None),  # a top-1 of 0.85, but it finds half of the rare category
        ([[5, 5], [5, 5]], "no better than chance: its mean recall over 2 categories is 0.500"),
        ([[0, 5], [5, 0]], "no better than chance"),
        ([[5, 0], [0, 0]], None),  # one category in the split shows nothing
    ],
)
def test_weakness_of_a_classifier(matrix: list[list[int]], weakness: str | None) -> None:
    found = weak_classifier(torch.tensor(matrix), ("a", "b"))
    assert (found is None) == (weakness is None)
    assert weakness is None or weakness in str(found)


def a_score(label: str, ap50: float | None) -> CategoryScore:
    return CategoryScore(label=label, objects=3, ap=ap50, ap50=ap50, precision_at_50=())


@pytest.mark.parametrize(
    ("scores", "weakness"),
    [
        ((0.0, 0.0), "no better than chance"),
        ((0.4, 0.0), "It finds only 'a'"),
        ((0.4, None), None),
        ((0.4, 0.1), None),
        ((None, None), None),
    ],
)
def test_weakness_of_a_detector(scores: tuple[float | None, ...], weakness: str | None) -> None:
    found = weak_detector([a_score(label, ap50) for label, ap50 in zip("ab", scores, strict=True)])
    assert (found is None) == (weakness is None)
    assert weakness is None or weakness in str(found)


@pytest.mark.parametrize(
    ("matrix", "weakness"),
    [
        ([[90, 0, 0], [5, 5, 0], [9, 0, 0]], "It finds no pixel of 'cat'"),
        ([[90, 0, 0], [5, 0, 0], [9, 0, 0]], "It finds no pixel of 'ant', 'cat'"),
        ([[90, 0, 0], [5, 1, 0], [9, 0, 1]], None),
        ([[90, 0, 0], [5, 1, 0], [0, 0, 0]], None),  # no cat in the split
        ([[90, 0, 0], [0, 0, 0], [0, 0, 0]], None),
    ],
)
def test_weakness_of_a_segmentation_network(matrix: list[list[int]], weakness: str | None) -> None:
    found = weak_segmenter(torch.tensor(matrix), ("background", "ant", "cat"))
    assert (found is None) == (weakness is None)
    assert weakness is None or weakness in str(found)


def test_f1_is_the_mean_over_the_categories_by_hand() -> None:
    logits = torch.tensor([[2.0, 0, 0], [2, 0, 0], [0, 2, 0], [2, 0, 0]])
    evaluation = evaluate_logits(logits, torch.tensor([0, 0, 1, 1]), ("a", "b", "c"))

    assert evaluation.metrics["val/top1"] == pytest.approx(3 / 4)
    assert evaluation.metrics["val/f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)  # nobody has or answers "c"


@pytest.mark.parametrize("architecture", ["yolo", "fasterrcnn_fpn", "fast_rcnn"])
def test_detection_validates_with_one_pass_per_batch(tmp_path: Path, architecture: str) -> None:
    config = a_detection_config(a_detection_dataset(tmp_path, train=2, val=3), architecture=architecture)
    run = a_run(tmp_path, config)
    task = DetectionTask(make_run_inputs(run.read_config(), tmp_path))
    torch.manual_seed(0)
    module = build(architecture, num_categories=2, image_size_px=96, options=config.options)
    passes: list[int] = []
    first = next(part for part in module.backbone.modules() if isinstance(part, nn.Conv2d))  # type: ignore[union-attr]
    first.register_forward_hook(lambda *_: passes.append(1))

    shared = task.evaluate(module).metrics
    assert len(passes) == 2  # three images in batches of two
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workers.training.detection.shared_pass._SHARED", ())
        assert task.evaluate(module).metrics == shared
    assert len(passes) == 2 + 4


def test_shared_pass_answers_another_input_anew() -> None:
    module = nn.Module()
    module.backbone = nn.Linear(2, 2)
    with shared_pass(module):
        one, other, again = (module.backbone(torch.full((1, 2), value)) for value in (1.0, 2.0, 2.0))

    assert not torch.equal(one, other)
    assert other is again
    assert module.backbone(torch.full((1, 2), 2.0)) is not again
