from __future__ import annotations

import torch
from torch import Tensor

from models.architectures.detection_outputs import keep_detections


def output() -> dict[str, Tensor]:
    """Two that overlap by 0.6 of their union, one elsewhere, and one of another category on the first."""
    return {
        "boxes": torch.tensor([[0.0, 0, 40, 10], [10, 0, 50, 10], [80, 0, 90, 10], [0, 0, 40, 10]]),
        "scores": torch.tensor([0.6, 0.9, 0.3, 0.5]),
        "labels": torch.tensor([1, 1, 1, 2]),
        "masks": torch.arange(4).view(4, 1, 1, 1).expand(4, 1, 2, 2),
    }


def kept(**wanted: object) -> list[int]:
    return keep_detections(output(), **wanted)["masks"][:, 0, 0, 0].tolist()  # type: ignore[arg-type]


def test_best_of_boxes_that_overlap_stays_and_every_tensor_is_cut_alike() -> None:
    found = keep_detections(output())

    assert found["scores"].tolist() == torch.tensor([0.9, 0.5, 0.3]).tolist()
    assert found["labels"].tolist() == [1, 2, 1]
    assert found["masks"].shape == (3, 1, 2, 2)


def test_thresholds_labels_and_number_choose() -> None:
    assert kept(iou_threshold=0.7) == [1, 0, 3, 2]
    assert kept(score_threshold=0.5) == [1, 3]
    assert kept(score_threshold=0.95) == []
    assert kept(max_detections=1) == [1]
    assert kept(labels={2}) == [3]


def test_weak_box_does_not_suppress_and_a_category_that_is_not_wanted_neither() -> None:
    assert kept(score_threshold=0.55, iou_threshold=0.0) == [1]
    assert kept(labels={1}, iou_threshold=0.0) == [1, 2]


def test_nothing_stays_nothing() -> None:
    empty = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
    assert len(keep_detections(empty)["boxes"]) == 0
