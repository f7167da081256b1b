"""The report of a segmentation run: overlap by category, which are taken for which, the worst images by name."""

from __future__ import annotations

import json
from collections.abc import Sequence

from models.storage import replace_file
from workers.datasets.dataset import DatasetImage
from workers.jobs import BestEpoch
from workers.run_directory import RunDirectory
from workers.training.confusion import draw_confusion
from workers.training.curves import draw_curves
from workers.training.segmentation.task import SegmentationEvaluation

_WORST = 24  # images


def write_report(
    run: RunDirectory,
    evaluation: SegmentationEvaluation,
    *,
    categories: Sequence[str],
    images: Sequence[DatasetImage],
    best: BestEpoch | None,
) -> None:
    """Writes report.json, confusion.png and, after a training, curves.png. best: None when nothing was trained."""
    run.report.mkdir(exist_ok=True)
    order = sorted(range(len(images)), key=lambda index: (evaluation.accuracies[index], index))[:_WORST]
    content = {
        "format_version": 1,
        "task": "segmentation",
        "metrics": evaluation.metrics,
        "best_epoch": best.epoch if best else None,
        "categories": [
            {
                "label": label,
                "pixels": int(evaluation.matrix[index].sum()),
                "iou": evaluation.metrics.get(f"val/iou/{label}"),
            }
            for index, label in enumerate(categories)
        ],
        "confusion_matrix": evaluation.matrix.tolist(),  # pixels; row: truth, column: prediction
        "worst": [
            {"image": images[index].path, "pixel_accuracy": round(evaluation.accuracies[index], 4)} for index in order
        ],
    }
    replace_file(run.report / "report.json", json.dumps(content, indent=1).encode())
    draw_confusion(evaluation.matrix, categories).savefig(run.report / "confusion.png", dpi=100)
    if best is not None:
        words = {"val/miou": "mean IoU", "val/pixel_accuracy": "pixel accuracy"}
        curves = draw_curves(run.read_metrics(), best, title="Validation", metrics=words)
        curves.savefig(run.report / "curves.png", dpi=100)
