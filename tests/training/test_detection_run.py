"""Whole training runs of detectors."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.architectures.region_proposals import compute_proposals
from models.store.registry import Registry
from tests.training.runs import a_run, hand_back_at
from tests.training.shape_runs import CATEGORIES, a_detection_config, a_detection_dataset
from workers.configs.evaluate import EvaluateConfig
from workers.configs.resolve_evaluate import resolve_evaluate
from workers.datasets.store import DatasetStore
from workers.run_directory import RunDirectory
from workers.supervision.publishing import publish
from workers.training.detection.task import DetectionTask
from workers.training.evaluate import evaluate_run
from workers.training.failures import NonFiniteLoss
from workers.training.loop import RunHandedBack
from workers.training.run import train_run


@pytest.mark.parametrize("architecture", ["yolo", "maskrcnn_fpn"])
def test_detector_trains_to_weights_metrics_and_report(tmp_path: Path, architecture: str) -> None:
    run = a_run(tmp_path, a_detection_config(a_detection_dataset(tmp_path), architecture=architecture))
    train_run(run)

    result = run.read_result()
    assert result is not None
    assert result.decisive_metric == "val/map"
    assert {"val/loss", "val/map", "val/map50"} <= set(result.metrics)
    assert ("val/mask_map" in result.metrics) == (architecture == "maskrcnn_fpn")
    assert run.best_weights.exists()
    report = json.loads((run.report / "report.json").read_text())
    assert [row["label"] for row in report["categories"]] == list(CATEGORIES)
    assert {"precision_recall.png", "curves.png"} <= {path.name for path in run.report.iterdir()}


def test_detector_learns(tmp_path: Path) -> None:
    dataset = a_detection_dataset(tmp_path, train=8, val=2)
    knobs = {"epochs": 6, "augmentation": "none", "learning_rate": 0.001, "warmup_steps": 4}
    run = a_run(tmp_path, a_detection_config(dataset, hyperparameters=knobs))
    train_run(run)

    losses = [line.metrics["train/loss"] for line in run.read_metrics() if "train/loss" in line.metrics]
    assert losses[-1] < 0.8 * losses[0]


def test_proposals_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []

    def counted(image: Tensor) -> Tensor:
        found.append(1)
        return compute_proposals(image)

    monkeypatch.setattr("workers.training.detection.proposals.compute_proposals", counted)
    dataset = a_detection_dataset(tmp_path, train=4, val=2)
    for job_id in ("first", "second"):
        run = a_run(tmp_path, a_detection_config(dataset, architecture="fast_rcnn"), job_id=job_id)
        train_run(run)
        assert run.read_result() is not None

    assert len(found) == 5  # in four epochs of two runs; both splits have the same image without shapes


def test_non_finite_loss_names_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run(tmp_path, a_detection_config(a_detection_dataset(tmp_path)))
    plain = DetectionTask.loss

    def poisoned(self: DetectionTask, module: nn.Module, batch: object) -> Tensor:
        loss = plain(self, module, batch)  # type: ignore[arg-type]
        return loss * math.nan if 3 in self.indices(batch) else loss  # type: ignore[arg-type]

    monkeypatch.setattr(DetectionTask, "loss", poisoned)
    with pytest.raises(NonFiniteLoss, match=r"on .*train/003\.png"):
        train_run(run)


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("yolo", {"variant": "v1", "backbone": "mobilenet_v3_small"}),
        ("fasterrcnn_fpn", {"backbone": "mobilenet_v3_small"}),
    ],
)
def test_interrupted_run_ends_with_exactly_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, options: dict[str, str]
) -> None:
    """Both networks draw random numbers: for dropout, and for the choice of regions."""
    dataset = a_detection_dataset(tmp_path, train=6, val=2)
    config = a_detection_config(dataset, architecture=architecture, options=options)
    whole, interrupted = (a_run(tmp_path, config, job_id=name) for name in ("whole", "interrupted"))
    train_run(whole)
    with monkeypatch.context() as patch:
        hand_back_at(2, interrupted, patch)
        with pytest.raises(RunHandedBack):
            train_run(interrupted)
    interrupted.hand_back_request.unlink()
    train_run(interrupted)

    one, other = (_weights(run) for run in (whole, interrupted))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("old", "new"), [("yolo", "fast_rcnn"), ("maskrcnn_fpn", "yolo"), ("yolo", "maskrcnn_fpn")])
def test_production_with_another_architecture_is_compared(tmp_path: Path, old: str, new: str) -> None:
    dataset = a_detection_dataset(tmp_path, train=4, val=2)
    registry = Registry(tmp_path / "registry")
    for number, architecture in enumerate((old, new)):
        config = a_detection_config(dataset, architecture=architecture, hyperparameters={"epochs": 1})
        run = a_run(tmp_path, config, job_id=f"job-{number}")
        train_run(run)
        result = run.read_result()
        assert result is not None
        publish(run, run.read_config(), result, registry, now=datetime(2026, 1, 1, tzinfo=UTC))

    assert result is not None
    assert result.comparison is not None
    assert result.comparison.reason is None
    assert "val/map" in result.comparison.metrics


@pytest.mark.parametrize("architecture", ["maskrcnn_fpn", "yolo"])
def test_detector_learns_and_is_evaluated_in_bfloat16(tmp_path: Path, architecture: str) -> None:
    """Torchvision's suppression accepts no boxes in bfloat16, so they must be converted before."""
    dataset = a_detection_dataset(tmp_path, train=2, val=2)
    changes = {"epochs": 1, "precision": "bfloat16"}
    run = a_run(tmp_path, a_detection_config(dataset, architecture=architecture, hyperparameters=changes))
    train_run(run)
    result = run.read_result()
    assert result is not None
    assert result.precision == "bfloat16"
    assert {"val/loss", "val/map50"} <= result.metrics.keys()


def test_evaluation_reproduces_the_metrics_of_the_run(tmp_path: Path) -> None:
    dataset = a_detection_dataset(tmp_path, train=4, val=3)
    registry = Registry(tmp_path / "registry")
    config = a_detection_config(dataset, architecture="fasterrcnn_fpn", hyperparameters={"epochs": 1})
    run = a_run(tmp_path, config)
    train_run(run)
    result = run.read_result()
    assert result is not None
    publish(run, run.read_config(), result, registry, now=datetime(2026, 1, 1, tzinfo=UTC))

    wanted = EvaluateConfig(type="evaluate", model="shapes/1", dataset="shapes", batch_size=2, precision="float32")
    resolved = resolve_evaluate(wanted, datasets=DatasetStore(tmp_path / "datasets"), registry=registry)
    for job_id in ("once", "again"):
        evaluation = a_run(tmp_path, resolved, job_id=job_id)
        evaluate_run(evaluation)
        found = evaluation.read_result()
        assert found is not None
        assert found.metrics == pytest.approx(result.metrics, abs=1e-6)
        assert (evaluation.report / "report.json").exists()
        assert publish(evaluation, evaluation.read_config(), found, registry, now=datetime.now(UTC)).version == 1
    assert registry.versions("shapes") == [1]


def _weights(run: RunDirectory) -> dict[str, Tensor]:
    saved = torch.load(run.last_checkpoint, weights_only=True)
    weights: dict[str, Tensor] = saved["model"]
    return weights
