"""Whole runs in this process: the files that they write, and that an interruption changes nothing."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from models.store.library_versions import library_versions
from models.store.registry import Registry
from tests.fonts import write_font
from tests.training.runs import a_dataset, a_run, hand_back_at
from tests.workers.jobs_builders import a_config
from workers.configs.evaluate import EvaluateConfig
from workers.configs.resolve_evaluate import resolve_evaluate
from workers.datasets.store import DatasetStore
from workers.run_directory import EventTail, RunDirectory
from workers.supervision.publishing import publish
from workers.training.classification.task import ClassificationTask
from workers.training.evaluate import evaluate_run
from workers.training.failures import NonFiniteLoss, explain_failure
from workers.training.fence import FenceLost
from workers.training.loop import RunHandedBack
from workers.training.run import train_run
from workers.training.run_inputs import make_run_inputs
from workers.training.task import Evaluation


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def test_complete_run_writes_all_files(home: Path) -> None:
    run = a_run(home)
    train_run(run)
    result = run.read_result()
    assert result is not None
    assert set(result.metrics) == {"val/loss", "val/top1", "val/f1"}
    assert (result.epochs, result.stopped_early, result.precision) == (2, False, "float32")
    assert result.libraries == library_versions()
    names = {path.name for path in run.report.iterdir()}
    assert {"report.json", "curves.png", "confusion.png"} <= names
    report = json.loads((run.report / "report.json").read_text())
    assert sum(map(sum, report["confusion_matrix"])) == 8  # one fifth of 40 images
    assert list(run.tensorboard.rglob("events.out.tfevents.*"))
    epochs = [line for line in run.read_metrics() if "val/loss" in line.metrics]
    assert [line.epoch for line in epochs] == [1, 2]
    kinds = {line.type for line in EventTail(path=run.events).read()}
    assert kinds == {"message", "progress", "metrics"}


def test_best_weights_are_measured_on_the_test_split_once_at_the_end(home: Path) -> None:
    dataset = a_dataset(home, splits={"train": 24, "val": 8, "test": 12})
    run = a_run(home, a_config(dataset=dataset))
    train_run(run)
    result = run.read_result()
    assert result is not None
    assert set(result.metrics) == {"val/loss", "val/top1", "val/f1", "test/loss", "test/top1", "test/f1"}
    assert result.decisive_metric == "val/top1"
    assert not [line for line in run.read_metrics() if any(name.startswith("test/") for name in line.metrics)]
    alone = a_run(home, a_config(dataset=a_dataset(home, splits={"train": 24, "val": 8})), job_id="job-2")
    train_run(alone)
    other = alone.read_result()
    assert other is not None
    val = {name: value for name, value in result.metrics.items() if name.startswith("val/")}
    assert other.metrics == val  # the test split changed nothing

    registry = Registry(home / "registry")
    publish(run, run.read_config(), result, registry, now=datetime(2026, 1, 1, tzinfo=UTC))
    for split in ("val", "test"):
        wanted = EvaluateConfig(type="evaluate", model="shapes/1", dataset="shapes/1", split=split, precision="float32")
        resolved = resolve_evaluate(wanted, datasets=DatasetStore(home / "datasets"), registry=registry)
        evaluation = a_run(home, resolved, job_id=f"on-{split}")
        evaluate_run(evaluation)
        found = evaluation.read_result()
        assert found is not None
        assert found.decisive_metric == f"{split}/top1"
        expected = {name: value for name, value in result.metrics.items() if name.startswith(split)}
        assert found.metrics == pytest.approx(expected, abs=1e-6)
        assert (
            sum(map(sum, json.loads((evaluation.report / "report.json").read_text())["confusion_matrix"]))
            == ({"val": 8, "test": 12}[split])
        )


def test_report_is_drawn_with_the_font_of_the_run(home: Path) -> None:
    font = write_font(home / "made.ttf", "abc")
    run = a_run(home, font=font)
    assert make_run_inputs(run.read_config(), home).fonts.first.path == font


def test_training_learns(home: Path) -> None:
    config = a_config(dataset=a_dataset(home), hyperparameters={"epochs": 12, "optimizer": "adamw"})
    run = a_run(home, config)
    train_run(run)
    result = run.read_result()
    assert result is not None
    assert result.metrics["val/top1"] == 1.0


@pytest.mark.parametrize("stop_after", [2, 4, 7])
def test_interrupted_run_ends_with_exactly_the_same_weights(
    home: Path, stop_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"augmentation": "basic", "schedule": "cosine", "optimizer": "adamw", "epochs": 3}
    config = a_config(dataset=a_dataset(home), hyperparameters=changes)
    whole, broken = a_run(home, config, job_id="whole"), a_run(home, config, job_id="broken")
    train_run(whole)
    with monkeypatch.context() as patch:
        hand_back_at(stop_after, broken, patch)
        with pytest.raises(RunHandedBack):
            train_run(broken)
    assert broken.read_result() is None
    broken.hand_back_request.unlink()
    torch.manual_seed(12345)  # a new process starts with other random numbers
    train_run(broken)
    _assert_same_weights(whole, broken)
    assert [line.metrics for line in whole.read_metrics()][-1] == [line.metrics for line in broken.read_metrics()][-1]


def test_model_depends_on_the_seed(home: Path) -> None:
    dataset = a_dataset(home)
    runs = [
        a_run(home, a_config(dataset=dataset, hyperparameters={"seed": seed}), job_id=f"job-{number}")
        for number, seed in enumerate((1, 1, 2))
    ]
    for run in runs:
        train_run(run)
    _assert_same_weights(runs[0], runs[1])
    with pytest.raises(AssertionError):
        _assert_same_weights(runs[0], runs[2])


def test_periodic_checkpoint_within_an_epoch_changes_nothing(home: Path) -> None:
    config = a_config(dataset=a_dataset(home))
    plain = a_run(home, config, job_id="plain")
    often = a_run(home, config, job_id="often", checkpoint_interval_s=1e-6)
    train_run(plain)
    train_run(often)
    _assert_same_weights(plain, often)


def test_stop_request_ends_the_run_early_with_weights(home: Path) -> None:
    run = a_run(home, a_config(dataset=a_dataset(home), hyperparameters={"epochs": 500}))
    run.stop_request.touch()
    train_run(run)
    result = run.read_result()
    assert result is not None
    assert (result.epochs, result.stopped_early) == (1, True)
    assert run.best_weights.exists()


def test_attempt_with_an_old_token_writes_no_checkpoint(home: Path) -> None:
    run = a_run(home)
    run.write_fence(2)
    with pytest.raises(FenceLost):
        train_run(run, token=1)
    assert not run.last_checkpoint.exists()
    assert not run.result.exists()


def test_non_finite_loss_fails_the_run_with_a_hint(home: Path) -> None:
    changes = {"epochs": 30, "learning_rate": 10.0, "momentum": 0.99, "schedule": "none"}
    run = a_run(home, a_config(dataset=a_dataset(home), hyperparameters=changes))
    with pytest.raises(NonFiniteLoss, match="step") as caught:
        train_run(run)
    failure = explain_failure(caught.value, run)
    assert failure.code == "non_finite_loss"
    assert "learning_rate" in (failure.hint or "")
    assert run.read_result() is None


def test_non_finite_validation_loss_fails_before_anything_is_stored(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(home)
    evaluation = Evaluation(metrics={"val/loss": math.nan, "val/top1": 0.5})
    monkeypatch.setattr(ClassificationTask, "evaluate", lambda *_: evaluation)
    with pytest.raises(NonFiniteLoss, match="val/loss became nan"):
        train_run(run)
    assert not run.best_weights.exists()
    assert not any("val/loss" in line.metrics for line in run.read_metrics())


def test_damaged_image_fails_the_run_and_is_named(home: Path) -> None:
    run = a_run(home)
    victim = next((home / "datasets").rglob("circle/000.png"))
    victim.write_bytes(b"no longer an image")
    with pytest.raises(Exception, match=r"circle/000\.png") as caught:
        train_run(run)
    assert explain_failure(caught.value, run).code == "bad_data"


def test_feature_extraction_changes_only_the_head(home: Path) -> None:
    dataset = a_dataset(home, images=10, side_px=40)
    preset = {"channels": 3, "resize_px": 32, "crop_px": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    changes = {"epochs": 1, "image_size_px": 32, "learning_rate": 0.1}
    common: dict[str, Any] = {"dataset": dataset, "architecture": "resnet18", "preset": preset}
    common["hyperparameters"] = changes
    base = a_run(home, a_config(**common, publish_as="base"), job_id="base")
    train_run(base)
    registry = Registry(home / "registry")
    result = base.read_result()
    assert result is not None
    publish(base, base.read_config(), result, registry, now=datetime.now(UTC))
    run = a_run(home, a_config(**common, base="base/1", strategy="feature_extraction"), job_id="tuned")
    train_run(run)
    before, after = load_file(base.best_weights), load_file(run.best_weights)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"fc.weight", "fc.bias"}


def test_production_is_compared_on_the_new_validation_split(home: Path) -> None:
    config = a_config(dataset=a_dataset(home))
    registry = Registry(home / "registry")
    first, second = a_run(home, config, job_id="first"), a_run(home, config, job_id="second")
    train_run(first)
    result = first.read_result()
    assert result is not None
    result = result.model_copy(update={"weakness": None})  # two epochs are too few to be better than chance
    assert publish(first, first.read_config(), result, registry, now=datetime.now(UTC)).promoted
    train_run(second)
    again = second.read_result()
    assert again is not None
    assert again.comparison is not None
    assert again.comparison.reference == "shapes/1"
    assert again.comparison.metrics["val/top1"] == pytest.approx(result.metrics["val/top1"])
    again = again.model_copy(update={"weakness": None})
    published = publish(second, second.read_config(), again, registry, now=datetime.now(UTC))
    assert (published.version, published.promoted) == (2, False)
    assert "not better" in published.promotion


def test_publishing_twice_publishes_once(home: Path) -> None:
    run = a_run(home)
    train_run(run)
    result = run.read_result()
    assert result is not None
    registry = Registry(home / "registry")
    first = publish(run, run.read_config(), result, registry, now=datetime.now(UTC))
    second = publish(run, run.read_config(), result, registry, now=datetime.now(UTC))
    assert (first.version, second.version) == (1, 1)
    assert registry.versions("shapes") == [1]
    assert registry.resolve("shapes").report_dir.joinpath("report.json").exists()


def _assert_same_weights(one: RunDirectory, other: RunDirectory) -> None:
    left, right = load_file(one.best_weights), load_file(other.best_weights)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
