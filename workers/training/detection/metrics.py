"""COCO's metrics: average precision by overlap (IoU), object size and category.

faster-coco-eval computes them, with the same results as pycocotools.
Source: Lin et al. 2014 and cocodataset.org/#detection-eval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from models.masks.coco_masks import area_of_mask
from workers.datasets.dataset import DatasetImage

_SUMMARY = {  # metric -> its position in COCO's statistics
    "map": 0,
    "map50": 1,
    "map75": 2,
    "map_small": 3,  # objects below 32 x 32 px
    "map_medium": 4,
    "map_large": 5,  # objects above 96 x 96 px
    "mar100": 8,  # recall of the 100 best detections per image
}

# The detections of one image: boxes float [N, 4] xyxy in pixels of the original, labels int [N] from 1, scores [N].
ImageDetections = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class CategoryScore:
    """The average precision (AP) of one category."""

    label: str
    objects: int  # without crowds and difficult objects
    ap: float | None  # mean over the IoU thresholds 0.50 to 0.95; None: the split has no objects of the category
    ap50: float | None  # at the IoU threshold 0.50
    precision_at_50: tuple[float, ...]  # at the recalls 0, 0.01, …, 1; empty: the split has no objects of the category


@dataclass(frozen=True, kw_only=True, slots=True)
class CocoScores:
    """The metrics of the detections on one split."""

    summary: dict[str, float]  # values in [0, 1]; a metric without objects to measure on is missing
    categories: tuple[CategoryScore, ...]


def coco_scores(
    detections: Sequence[ImageDetections],
    images: Sequence[DatasetImage],
    categories: Sequence[str],
    *,
    of: Literal["bbox", "segm"] = "bbox",
) -> CocoScores:
    """Computes the metrics of `detections`, one mapping per image; for "segm" each has `masks`, a list of run lengths.

    Crowds and difficult objects are ignored, and so are all detections that lie mostly on one of them, as COCO demands
    for crowds. (Pascal VOC ignores only one detection per difficult object, at an IoU of 0.5.)
    """
    truth = COCO(_ground_truth(images, categories, with_masks=of == "segm"))
    found = [row for number, each in enumerate(detections) for row in _rows(number, each, images[number], of)]
    evaluation = COCOeval_faster(truth, truth.loadRes(found), of, print_function=_print_nothing)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    stats = evaluation.stats
    precision = np.asarray(evaluation.eval["precision"])  # [IoU, recall, category, object size, maximum of detections]
    return CocoScores(
        summary={name: float(stats[at]) for name, at in _SUMMARY.items() if stats[at] > -1},
        categories=tuple(
            _category_score(label, number, precision[:, :, number, 0, -1], images)
            for number, label in enumerate(categories)
        ),
    )


def _category_score(label: str, number: int, precision: Any, images: Sequence[DatasetImage]) -> CategoryScore:
    objects = _count_objects(images, number)
    has_any = bool((precision > -1).any())
    return CategoryScore(
        label=label,
        objects=objects,
        ap=float(precision.mean()) if has_any else None,
        ap50=float(precision[0].mean()) if has_any else None,
        precision_at_50=tuple(precision[0].tolist()) if has_any else (),
    )


def _count_objects(images: Sequence[DatasetImage], category: int) -> int:
    return sum(
        each.category == category and not (each.is_crowd or each.is_difficult)
        for image in images
        for each in image.objects
    )


def _ground_truth(images: Sequence[DatasetImage], categories: Sequence[str], *, with_masks: bool) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for number, image in enumerate(images):
        for each in image.objects:
            x_min, y_min, x_max, y_max = each.box
            width, height = x_max - x_min, y_max - y_min
            annotation: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": each.category + 1,
                "bbox": [x_min, y_min, width, height],
                "area": width * height if each.area is None else each.area,
                "iscrowd": int(each.is_crowd or each.is_difficult),
            }
            if with_masks:
                assert each.mask is not None
                annotation["segmentation"] = {"size": [image.height, image.width], "counts": each.mask}
                if each.area is None:
                    annotation["area"] = area_of_mask(each.mask, image.height, image.width)
            annotations.append(annotation)
    return {
        "info": {},
        "images": [{"id": n, "width": image.width, "height": image.height} for n, image in enumerate(images)],
        "annotations": annotations,
        "categories": [{"id": number, "name": label} for number, label in enumerate(categories, start=1)],
    }


def _rows(number: int, found: ImageDetections, image: DatasetImage, of: str) -> list[dict[str, Any]]:
    """The rows of a results file. A row of a mask has no `bbox`: COCO would take the area of the mask from it."""
    shapes: list[dict[str, Any]]
    if of == "segm":
        size = [image.height, image.width]
        shapes = [{"segmentation": {"size": size, "counts": counts}} for counts in found["masks"]]
    else:
        shapes = [{"bbox": [x1, y1, x2 - x1, y2 - y1]} for x1, y1, x2, y2 in found["boxes"].tolist()]
    return [
        {"image_id": number, "category_id": label, "score": score, **shape}
        for label, score, shape in zip(found["labels"].tolist(), found["scores"].tolist(), shapes, strict=True)
    ]


def _print_nothing(*words: object) -> None:
    """Replaces the print function of the library."""
