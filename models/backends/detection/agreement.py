"""Whether a detector finds the same another way: its networks on the same input, and the objects in the end.

The objects are held against those of eager float32 as a detector is held against the truth (Lin et al. 2014). On
images in which it finds none, made-up ones for instance, its networks still have to agree.
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
from models.backends.verification import batches, told_apart
from models.errors import BackendRefused
from models.precision import Precision

_OBJECT_SCORE: Final = 0.3  # what scores less, nobody relies on
_CERTAIN_SCORE: Final = 0.5  # what is found so surely must be an object of eager float32
_MOST_OBJECTS = 1000  # an image

# Most that the outputs of a network may differ, relative to their size, and least average precision.
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
    """How `other` compares on `views`, uint8 [3, h, w]."""
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
    """Raises BackendRefused if they differ beyond tolerance."""
    most, least = DETECTOR_TOLERANCES[precision]
    assert agreement.network_difference is not None
    if not agreement.network_difference <= most:
        raise BackendRefused(
            f"A network's output differs from eager float32 by {told_apart(agreement.network_difference, most)} "
            f"of its size; {most:g} is the most."
        )
    if agreement.ap is not None and agreement.ap < least:
        raise BackendRefused(
            f"Of eager float32's {agreement.objects} objects the average precision is "
            f"{told_apart(agreement.ap, least, digits=3)}; {least:g} must be."
        )


class _Both:
    """Networks that answer as the first ones do, and note how far the second ones are from that."""

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
    """The 2-norm of the difference over that of `expected`; infinite where something is no number."""
    size = float(expected.double().norm())
    difference = float((found.to(expected.device) - expected).double().norm())
    if not np.isfinite(difference):
        return float("inf")
    return difference / max(size, 1e-6)


def average_precision(found: Detections, objects: Detections) -> float:
    """COCO's mean over overlaps and categories, in [0, 1], of `found` where `objects` are the truth.

    A category of which there is no object counts too, with 0, if something is found of it with certainty.
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
    """As COCO writes them: bbox is x, y, width, height."""
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
