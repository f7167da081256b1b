"""Whole runs of detectors, from a directory to a directory."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.architectures.region_proposals import compute_proposals
from tests.training.runs import a_run
from tests.training.shape_runs import CATEGORIES, a_detection_config, a_detection_dataset
from workers.run_directory import RunDirectory
from workers.training.detection.task import DetectionTask
from workers.training.failures import NonFiniteLoss
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


def test_proposals_are_found_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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

    assert len(found) == 5  # over four epochs of two runs; the pictures without shapes are one and the same


def test_loss_that_is_not_finite_names_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run(tmp_path, a_detection_config(a_detection_dataset(tmp_path)))
    plain = DetectionTask.loss

    def poisoned(self: DetectionTask, module: nn.Module, batch: object) -> Tensor:
        loss = plain(self, module, batch)  # type: ignore[arg-type]
        return loss * math.nan if 3 in self.indices(batch) else loss  # type: ignore[arg-type]

    monkeypatch.setattr(DetectionTask, "loss", poisoned)
    with pytest.raises(NonFiniteLoss, match=r"on .*train/003\.png"):
        train_run(run)


def test_interrupted_run_ends_with_the_very_same_weights(tmp_path: Path) -> None:
    dataset = a_detection_dataset(tmp_path)
    whole, often = (
        a_run(tmp_path, a_detection_config(dataset), job_id=name, checkpoint_interval_s=interval)
        for name, interval in (("whole", 1e9), ("often", 1e-6))
    )
    for run in (whole, often):
        train_run(run)
    one, other = (_weights(run) for run in (whole, often))
    assert all(torch.equal(one[name], other[name]) for name in one)


def _weights(run: RunDirectory) -> dict[str, Tensor]:
    saved = torch.load(run.last_checkpoint, weights_only=True)
    weights: dict[str, Tensor] = saved["model"]
    return weights
