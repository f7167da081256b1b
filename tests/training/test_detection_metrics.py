"""COCO metrics: the same numbers as pycocotools, and cases without objects or without detections."""

from __future__ import annotations

import contextlib
import io
from typing import Any, Literal

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from models.masks.coco_masks import encode_mask
from workers.datasets.dataset import DatasetImage, DatasetObject
from workers.training.detection import metrics
from workers.training.detection.metrics import coco_scores

CATEGORIES = ("cat", "dog", "yak")


def an_image(*objects: DatasetObject) -> DatasetImage:
    return DatasetImage(path="a.png", name="a.png", objects=objects, width=200, height=160, sha256="0")


def box_mask(box: tuple[float, float, float, float]) -> str:
    mask = np.zeros((160, 200), dtype=np.uint8)
    x_min, y_min, x_max, y_max = (round(value) for value in box)
    mask[y_min:y_max, x_min:x_max] = 1
    return encode_mask(mask)


def some_scene(seed: int) -> tuple[list[DatasetImage], list[dict[str, Any]]]:
    """Images with objects of all sizes, some crowds, some difficult; with correct, wrong and repeated detections."""
    random = np.random.default_rng(seed)
    images, detections = [], []
    for _ in range(12):
        objects, boxes, labels = [], [], []
        for _ in range(int(random.integers(0, 6))):
            x, y = random.uniform(0, 90, 2)
            width, height = random.uniform(4, 110, 2).clip(max=[199 - x, 159 - y])
            box = (float(x), float(y), float(x + width), float(y + height))
            category, kind = int(random.integers(0, 2)), random.uniform()
            objects.append(
                DatasetObject(
                    category=category, box=box, mask=box_mask(box), is_crowd=kind < 0.1, is_difficult=kind > 0.9
                )
            )
            for _ in range(int(random.integers(0, 3))):
                moved = np.asarray(box) + random.normal(0, 4, 4)
                boxes.append([*np.minimum(moved[:2], moved[2:] - 2).clip(0), *moved[2:].clip(3, [200, 160])])
                labels.append(category + 1 if random.uniform() < 0.8 else 3)
        images.append(an_image(*objects))
        shape = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        detections.append(
            {
                "boxes": shape,
                "labels": torch.tensor(labels, dtype=torch.int64),
                "scores": torch.tensor(random.uniform(0.01, 1, len(labels)), dtype=torch.float32),
                "masks": [box_mask(tuple(box)) for box in shape.tolist()],
            }
        )
    return images, detections


@pytest.mark.parametrize("of", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_pycocotools(seed: int, of: Literal["bbox", "segm"]) -> None:
    images, detections = some_scene(seed)
    ours = coco_scores(detections, images, CATEGORIES, of=of)

    reference = COCO()
    reference.dataset = metrics._ground_truth(images, CATEGORIES, with_masks=of == "segm")
    rows = [row for n, each in enumerate(detections) for row in metrics._rows(n, each, images[n], of)]
    with contextlib.redirect_stdout(io.StringIO()):
        reference.createIndex()
        theirs = COCOeval(reference, reference.loadRes(rows), of)
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()

    assert len(ours.summary) >= 6
    for name, value in ours.summary.items():
        assert value == pytest.approx(theirs.stats[metrics._SUMMARY[name]], abs=1e-6), name
    for number, category in enumerate(ours.categories):
        precision = theirs.eval["precision"][:, :, number, 0, -1]
        expected = precision.mean() if precision.max() > -1 else None
        assert category.ap == (None if expected is None else pytest.approx(expected, abs=1e-6))


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
