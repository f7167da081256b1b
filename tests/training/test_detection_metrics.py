"""COCO metrics: the same numbers as pycocotools, and cases without objects or without detections."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.coco_metrics import Kind, compare, make_scene
from models.masks.coco_masks import encode_mask
from workers.datasets.dataset import DatasetImage, DatasetObject
from workers.training.detection.metrics import coco_scores

CATEGORIES = ("cat", "dog", "yak")


def an_image(*objects: DatasetObject) -> DatasetImage:
    return DatasetImage(path="a.png", name="a.png", objects=objects, width=200, height=160, sha256="0")


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(4))
def test_every_number_is_that_of_pycocotools_fed_from_the_file(tmp_path: Path, seed: int, kind: Kind) -> None:
    """The objects lie on both sides of 32 x 32 and 96 x 96, and the area of an L is not that of its box."""
    rows = compare(make_scene(seed), kind, tmp_path)

    assert {row.name: row.difference for row in rows if row.difference > 1e-6} == {}
    known = {row.name for row in rows if row.ours is not None}
    assert {"map", "map50", "map75", "map_small", "map_medium", "map_large", "mar100", "cat: AP", "dog: AP50"} <= known


@pytest.mark.parametrize(
    ("seed", "changes"),
    [
        (5, {"with_outlines": False}),  # the area of a box is what the file states, not width times height
        (6, {"detections_per_object": 0.0}),
        (7, {"detections_per_object": 60.0}),  # more than 100 in an image
    ],
)
def test_every_number_of_unusual_files_is_that_of_pycocotools(
    tmp_path: Path, seed: int, changes: dict[str, Any]
) -> None:
    kinds: tuple[Kind, ...] = ("bbox",) if "with_outlines" in changes else ("bbox", "segm")
    for kind in kinds:
        rows = compare(make_scene(seed, **changes), kind, tmp_path / kind)
        assert {row.name: row.difference for row in rows if row.difference > 1e-6} == {}


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_nothing_found_in_a_file_scores_as_in_pycocotools(tmp_path: Path, kind: Kind) -> None:
    scene = make_scene(3)
    rows = compare(replace(scene, results={"bbox": [], "segm": []}), kind, tmp_path)

    assert {row.name: row.difference for row in rows if row.difference > 1e-6} == {}
    assert next(row.ours for row in rows if row.name == "map_medium") == 0


def test_missed_crowd_costs_nothing_and_a_detection_inside_it_neither() -> None:
    """By hand: one of one object is found perfectly, whatever is found or missed in the crowd."""
    image = an_image(
        DatasetObject(category=0, box=(10, 10, 60, 70)),
        DatasetObject(category=0, box=(80, 20, 180, 120), is_crowd=True),
    )
    inside = {
        "boxes": torch.tensor([[10.0, 10, 60, 70], [90, 30, 120, 60]]),
        "labels": torch.tensor([1, 1]),
        "scores": torch.tensor([0.6, 0.9]),
    }
    missed = {name: values[:1] for name, values in inside.items()}

    for found in (inside, missed):
        scores = coco_scores([found], [image], CATEGORIES)
        assert scores.summary["map"] == pytest.approx(1)
        assert scores.categories[0].objects == 1


def test_size_of_a_mask_is_its_pixels_if_the_archive_states_no_area() -> None:
    """By hand: an L of 40 x 40 px has 1,600 - 30 x 30 = 700 pixels, so it is small, and its box is medium."""
    bits = np.zeros((160, 200), dtype=np.uint8)
    bits[10:50, 20:60] = 1
    bits[10:40, 30:60] = 0
    image = an_image(DatasetObject(category=0, box=(20, 10, 60, 50), mask=encode_mask(bits)))
    found = {
        "boxes": torch.tensor([[20.0, 10, 60, 50]]),
        "labels": torch.tensor([1]),
        "scores": torch.tensor([0.9]),
        "masks": [encode_mask(bits)],
    }
    masks, boxes = (coco_scores([found], [image], CATEGORIES, of=of).summary for of in ("segm", "bbox"))

    assert masks["map_small"] == pytest.approx(1)
    assert "map_medium" not in masks
    assert boxes["map_medium"] == pytest.approx(1)
    assert "map_small" not in boxes


def test_perfect_detections_score_one() -> None:
    image = an_image(DatasetObject(category=0, box=(10, 10, 60, 70)), DatasetObject(category=1, box=(80, 20, 120, 60)))
    found = {
        "boxes": torch.tensor([each.box for each in image.objects]),
        "labels": torch.tensor([1, 2]),
        "scores": torch.tensor([0.9, 0.8]),
    }
    scores = coco_scores([found], [image], CATEGORIES)

    assert scores.summary["map"] == pytest.approx(1)
    assert [each.ap for each in scores.categories] == [pytest.approx(1), pytest.approx(1), None]


def test_nothing_found_scores_zero() -> None:
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0), "scores": torch.zeros(0)}
    scores = coco_scores([nothing], [an_image(DatasetObject(category=0, box=(1, 1, 9, 9)))], CATEGORIES)

    assert scores.summary["map"] == 0
    assert [each.ap for each in scores.categories] == [0, None, None]


def test_missed_difficult_object_does_not_lower_the_score() -> None:
    image = an_image(
        DatasetObject(category=0, box=(10, 10, 60, 70)),
        DatasetObject(category=0, box=(80, 20, 120, 60), is_difficult=True),
    )
    found = {"boxes": torch.tensor([[10.0, 10, 60, 70]]), "labels": torch.tensor([1]), "scores": torch.tensor([0.9])}

    assert coco_scores([found], [image], CATEGORIES).summary["map"] == pytest.approx(1)
