"""Segmentation: views, metrics, and a whole training run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Generator

from models.manifest import ScalePreset
from tests.training.runs import a_run
from tests.training.shape_runs import LABELS, a_segmentation_config, a_segmentation_dataset
from workers.datasets.dataset import VOID
from workers.training.run import train_run
from workers.training.segmentation.images import augment, collate
from workers.training.segmentation.task import pixel_loss, segmentation_metrics

PRESET = ScalePreset(shorter_px=64, longer_px=128)


def test_label_map_changes_with_its_image() -> None:
    labels = torch.zeros(80, 120, dtype=torch.uint8)
    labels[20:60, 30:70] = 2
    pixels = labels.expand(3, 80, 120) * 120
    for seed in range(20):
        seen, moved = augment(PRESET, (pixels, labels), Generator().manual_seed(seed))
        assert seen.shape[-2:] == moved.shape
        bright = seen.float().mean(0) > 120
        assert float((bright == (moved == 2)).float().mean()) > 0.95


def test_batch_is_padded_with_void() -> None:
    small, large = (
        (torch.ones(3, *size, dtype=torch.uint8), torch.ones(*size, dtype=torch.uint8)) for size in ((4, 9), (6, 5))
    )
    batch = collate([0, 1], [small, large])

    assert (batch.pixels.shape, batch.targets.shape) == ((2, 3, 32, 32), (2, 32, 32))  # the smallest allowed size
    assert bool(batch.targets[0, 4:].eq(VOID).all())
    assert bool(batch.targets[1, :, 5:].eq(VOID).all())
    assert int((batch.targets == 1).sum()) == 4 * 9 + 6 * 5


def test_void_pixels_are_not_learned() -> None:
    logits, targets = torch.zeros(1, 2, 2, 2), torch.tensor([[[0, VOID], [VOID, VOID]]])
    logits[0, 0, 0, 0] = 50  # correct at the pixel with a category
    logits[0, 0, 1, 1] = -50  # wrong at a void pixel

    assert float(pixel_loss(logits, targets)) == pytest.approx(0, abs=1e-6)
    assert float(pixel_loss(logits, torch.full_like(targets, VOID))) == 0  # not NaN


def test_metrics_of_a_small_matrix_are_correct() -> None:
    matrix = torch.tensor([[50, 10, 0], [5, 35, 0], [0, 0, 0]])
    scores = segmentation_metrics(matrix, ("sky", "sea", "cow"))

    assert scores["val/iou/sky"] == pytest.approx(50 / 65)
    assert scores["val/iou/sea"] == pytest.approx(35 / 50)
    assert "val/iou/cow" not in scores  # the category does not occur
    assert scores["val/miou"] == pytest.approx((50 / 65 + 35 / 50) / 2)
    assert scores["val/pixel_accuracy"] == pytest.approx(0.85)


def test_network_trains_to_weights_metrics_and_report(tmp_path: Path) -> None:
    knobs = {"epochs": 8, "learning_rate": 0.003, "augmentation": "none"}
    run = a_run(tmp_path, a_segmentation_config(a_segmentation_dataset(tmp_path), hyperparameters=knobs))
    train_run(run)

    result = run.read_result()
    assert result is not None
    assert result.decisive_metric == "val/miou"
    losses = [line.metrics["train/loss"] for line in run.read_metrics() if "train/loss" in line.metrics]
    assert losses[-1] < 0.7 * losses[0]
    report = json.loads((run.report / "report.json").read_text())
    assert [row["label"] for row in report["categories"]] == list(LABELS)
    pixels = 4 * 96 * 94  # all images of val without their two void rows
    assert sum(map(sum, report["confusion_matrix"])) == pixels
    assert {"confusion.png", "curves.png", "mistakes.png"} <= {path.name for path in run.report.iterdir()}
