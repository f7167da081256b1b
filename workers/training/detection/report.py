"""Writes the report of a detection run: average precision by category, curves, and the images with most mistakes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.ops import box_iou

from models.drawing.contact_sheet import Tile, contact_sheet, to_picture
from models.drawing.fonts import Fonts
from models.images.decode import decode_image
from models.masks.coco_masks import decode_mask, polygons_of_mask
from models.store.storage import replace_file
from workers.datasets.dataset import DatasetImage
from workers.jobs.job import BestEpoch
from workers.run_directory import RunDirectory
from workers.training.curves import draw_curves
from workers.training.detection.evaluation import DetectionEvaluation
from workers.training.detection.metrics import CategoryScore, CocoScores
from workers.training.figure_labels import figure_labels

MAX_GALLERY_IMAGES = 12
_MIN_SCORE = 0.5  # detections with lower scores are not shown to users, so they are not counted as mistakes
_MIN_IOU = 0.5  # of a detection and the object that it finds
_TILE_PX = 320
_MISSED, _FOUND, _FALSE, _MASK = "#cf222e", "#1a7f37", "#f0883e", "#ffffff"
_CURVES_SHOWN = 10


def write_report(
    run: RunDirectory,
    evaluation: DetectionEvaluation,
    *,
    images: Sequence[DatasetImage],
    root: Path,
    fonts: Fonts,
    best: BestEpoch | None,
) -> None:
    """Writes report.json, precision_recall.png, mistakes.png if there are mistakes, and curves.png unless best is None.

    best: None if nothing was trained.
    """
    run.report.mkdir(exist_ok=True)
    errors = [find_mistakes(detections, image) for detections, image in zip(evaluation.detections, images, strict=True)]
    worst = sorted(range(len(images)), key=lambda index: (-errors[index].count, index))[:MAX_GALLERY_IMAGES]
    worst = [index for index in worst if errors[index].count]
    content = {
        "format_version": 1,
        "task": "detection",
        "metrics": evaluation.metrics,
        "best_epoch": best.epoch if best else None,
        "weakness": evaluation.weakness,
        "categories": _rows(evaluation.boxes),
        "mask_categories": None if evaluation.masks is None else _rows(evaluation.masks),
        "mistakes": [
            {"image": images[index].path, "missed": len(errors[index].missed), "false": len(errors[index].false)}
            for index in worst
        ],
    }
    replace_file(run.report / "report.json", json.dumps(content, indent=1).encode())
    draw_precision_recall(evaluation.boxes, fonts).savefig(run.report / "precision_recall.png", dpi=100)
    if best is not None:
        labels = {"val/map": "mAP 0.50:0.95", "val/map50": "mAP 0.50"}
        curves = draw_curves(run.read_metrics(), best, title="Validation average precision", metrics=labels)
        curves.savefig(run.report / "curves.png", dpi=100)
    if worst:
        tiles = [
            _tile(errors[index], images[index], root, _shown_masks(evaluation.detections[index])) for index in worst
        ]
        title = "Red: missed. Orange: false. Green: found. White: predicted masks."
        replace_file(run.report / "mistakes.png", contact_sheet(tiles, fonts, columns=4, tile_px=_TILE_PX, title=title))


class ImageMistakes:
    """The found and the missed objects and the false detections of one image: boxes, float32 [N, 4]."""

    def __init__(self, *, found: Tensor, missed: Tensor, false: Tensor) -> None:
        self.found = found
        self.missed = missed
        self.false = false

    @property
    def count(self) -> int:
        return len(self.missed) + len(self.false)


def find_mistakes(detections: Mapping[str, Any], image: DatasetImage) -> ImageMistakes:
    """Matches the detections, from the highest score to the lowest, with the objects of an image.

    Each detection finds the object of its category that it overlaps most, unless another detection has found it.
    """
    objects = [each for each in image.objects if not each.is_crowd]
    truth = torch.tensor([each.box for each in objects], dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor([each.category + 1 for each in objects], dtype=torch.int64)
    shown = (detections["scores"] >= _MIN_SCORE).nonzero().flatten()
    boxes, predicted = detections["boxes"][shown], detections["labels"][shown]
    overlaps = box_iou(boxes, truth) * (predicted[:, None] == labels)  # [detections, objects]
    is_found, is_true = torch.zeros(len(truth), dtype=torch.bool), torch.zeros(len(boxes), dtype=torch.bool)
    for row in range(len(boxes)):
        free = overlaps[row].masked_fill(is_found, 0.0)
        if len(truth) and float(free.max()) >= _MIN_IOU:
            is_found[free.argmax()] = True
            is_true[row] = True
    required = torch.tensor([not each.is_difficult for each in objects], dtype=torch.bool)
    return ImageMistakes(found=boxes[is_true], missed=truth[~is_found & required], false=boxes[~is_true])


def draw_precision_recall(scores: CocoScores, fonts: Fonts) -> Figure:
    """Draws precision by recall, at an IoU of 0.5, for the categories with the most objects."""
    known = sorted((each for each in scores.categories if each.precision_at_50), key=lambda each: -each.objects)
    shown = known[:_CURVES_SHOWN]
    with figure_labels([_legend(each) for each in shown], fonts) as labels:
        figure = Figure(figsize=(6, 5), layout="constrained")
        axes = figure.subplots()
        for each, label in zip(shown, labels, strict=True):
            axes.plot([at / 100 for at in range(101)], each.precision_at_50, label=label)
        if shown:
            axes.legend(loc="lower left")
    axes.set(xlabel="recall", ylabel="precision", title="Precision and recall at IoU 0.5", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    return figure


def _legend(score: CategoryScore) -> str:
    label = score.label if len(score.label) <= 30 else score.label[:29] + "…"
    return f"{label}: AP {score.ap50:.3f} of {score.objects:,}"


def _rows(scores: CocoScores) -> list[dict[str, object]]:
    rows = [asdict(each) for each in scores.categories]
    for row in rows:
        row.pop("precision_at_50")
    return rows


def _shown_masks(detections: Mapping[str, Any]) -> list[str]:
    """The run lengths of the predicted masks with a score that users see."""
    return [
        counts
        for counts, score in zip(detections.get("masks", ()), detections["scores"].tolist(), strict=False)
        if score >= _MIN_SCORE
    ]


def _tile(mistakes: ImageMistakes, image: DatasetImage, root: Path, masks: Sequence[str]) -> Tile:
    decoded = to_picture(decode_image((root / image.path).read_bytes())).convert("RGB")
    factor = _TILE_PX / max(decoded.size)
    size = (max(1, round(decoded.width * factor)), max(1, round(decoded.height * factor)))
    drawn = decoded.resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(drawn)
    for counts in masks:
        for outline in polygons_of_mask(decode_mask(counts, image.height, image.width)):
            draw.polygon([value * factor for value in outline], outline=_MASK)
    for boxes, colour in ((mistakes.found, _FOUND), (mistakes.false, _FALSE), (mistakes.missed, _MISSED)):
        for box in (boxes * factor).tolist():
            draw.rectangle(box, outline=colour, width=2)
    name = image.name.rpartition("/")[2]
    return Tile(image=drawn, caption=f"{name}\n{len(mistakes.missed)} missed, {len(mistakes.false)} false")
