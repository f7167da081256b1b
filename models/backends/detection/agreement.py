"""Compares a backend of a detector with eager float32: its networks on the same input, and the objects it finds.

The objects are compared as with a ground truth (Lin et al. 2014): those of eager float32 are the truth. The networks
must agree also on images without objects, such as generated ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Protocol

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from torch import Tensor

from models.backends.backend import Backend
from models.backends.detection.parts import Detections, Network
from models.backends.eager import EagerBackend
from models.backends.graphs import DetectionGraph
from models.backends.report import Agreement
from models.backends.verification import batches, format_distinct
from models.errors import BackendRefused
from models.precision import Precision

_OBJECT_SCORE: Final = 0.3  # objects with lower scores do not count
_CERTAIN_SCORE: Final = 0.5  # a detection with this score must be an object of eager float32
_MOST_OBJECTS = 1000  # per image

# By precision: the largest relative difference of a network's outputs, and the least average precision.
DETECTOR_TOLERANCES: Final[dict[Precision, tuple[float, float]]] = {
    "float32": (0.002, 0.99),
    "bfloat16": (0.1, 0.9),
    "int8": (0.15, 0.8),
}


class DetectorBackend(Backend, Protocol):
    """A backend of a detector."""

    @property
    def networks(self) -> Mapping[str, Network]:
        """See SplitDetector."""


def compare_detectors(
    eager: EagerBackend, other: DetectorBackend, views: Sequence[Tensor], *, source: Literal["dataset", "generated"]
) -> Agreement:
    """Compares `other` with eager float32 on `views`, uint8 [3, h, w]."""
    assert isinstance(eager.graph, DetectionGraph)
    assert eager.graph.split is not None
    both = _Both(eager.networks, other.networks)
    expected: Detections = []
    found: Detections = []
    with torch.inference_mode():
        for batch in batches(views):
            expected += eager.graph.split.detect(batch.to(eager.device), both.networks)
            found += other.run(batch)
    objects = [_from(each, _OBJECT_SCORE) for each in expected]
    count = sum(len(each["boxes"]) for each in objects)
    finds_any = any(len(_from(each, _CERTAIN_SCORE)["boxes"]) for each in found)
    return Agreement(
        pictures=len(views),
        source=source,
        ap=average_precision(found, objects) if count or finds_any else None,
        objects=count,
        network_difference=both.largest_difference,
    )


def check_detectors(agreement: Agreement, precision: Precision) -> None:
    """Raises BackendRefused if they differ by more than the tolerance."""
    most, least = DETECTOR_TOLERANCES[precision]
    assert agreement.network_difference is not None
    if not agreement.network_difference <= most:
        raise BackendRefused(
            f"A network's output differs from eager float32 by {format_distinct(agreement.network_difference, most)} "
            f"of its size; at most {most:g} is allowed."
        )
    if agreement.ap is not None and agreement.ap < least:
        raise BackendRefused(
            f"The average precision on the {agreement.objects} objects of eager float32 is "
            f"{format_distinct(agreement.ap, least, digits=3)}; at least {least:g} is required."
        )


class _Both:
    """Networks that run both backends, return the outputs of the first and record the difference of the second."""

    def __init__(self, own: Mapping[str, Network], others: Mapping[str, Network]) -> None:
        self.largest_difference = 0.0
        self.networks = {name: self._both(own[name], others[name]) for name in own}

    def _both(self, own: Network, other: Network) -> Network:
        def run(batch: Tensor) -> tuple[Tensor, ...]:
            expected = own(batch)
            differences = map(relative_difference, other(batch), expected)
            self.largest_difference = max(self.largest_difference, *differences)
            return expected

        return run


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """Returns the 2-norm of the difference divided by that of `expected`; infinite if a value is NaN or infinite."""
    size = float(expected.double().norm())
    difference = float((found.to(expected.device) - expected).double().norm())
    if not np.isfinite(difference):
        return float("inf")
    return difference / max(size, 1e-6)


def average_precision(found: Detections, objects: Detections) -> float:
    """Computes COCO's mean average precision, in [0, 1], of `found` with `objects` as the truth.

    A category without objects counts as 0 if a detection of it has a score of at least _CERTAIN_SCORE.
    """
    labels = {row["category_id"] for row in _rows(objects)}
    invented = {row["category_id"] for row in _rows([_from(each, _CERTAIN_SCORE) for each in found])} - labels
    if not labels:
        return 0.0 if invented else 1.0
    truth = COCO(
        {
            "images": [{"id": number} for number in range(len(objects))],
            "categories": [{"id": label} for label in sorted(labels)],
            "annotations": [
                {**row, "id": number, "iscrowd": 0, "area": row["bbox"][2] * row["bbox"][3]}
                for number, row in enumerate(_rows(objects), 1)
            ],
        }
    )
    rows = _rows(found)
    if not rows:
        return 0.0
    evaluation = COCOeval_faster(truth, truth.loadRes(rows), "bbox", print_function=lambda *_: None)
    evaluation.params.maxDets = [_MOST_OBJECTS]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"])[..., 0, -1]  # [overlap, recall, category] of any size
    return float(precision[precision > -1].mean()) * len(labels) / (len(labels) + len(invented))


def _rows(detections: Detections) -> list[dict[str, Any]]:
    """Converts detections to COCO's format; bbox is x, y, width, height."""
    return [
        {"image_id": number, "category_id": label, "score": score, "bbox": [x, y, right - x, lower - y]}
        for number, each in enumerate(detections)
        for (x, y, right, lower), label, score in zip(
            each["boxes"].tolist(), each["labels"].tolist(), each["scores"].tolist(), strict=True
        )
    ]


def _from(detections: Mapping[str, Tensor], score: float) -> dict[str, Tensor]:
    kept = detections["scores"] >= score
    return {name: detections[name][kept] for name in ("boxes", "labels", "scores")}
