"""Writes the report of a segmentation run: IoU by category, the confusion matrix, and the worst images."""

from __future__ import annotations

import json

from models.drawing.contact_sheet import Tile, contact_sheet, to_picture
from models.store.storage import replace_file
from workers.datasets.output.target_drawing import draw_label_map, legend, resize_longer_side
from workers.jobs.job import BestEpoch
from workers.run_directory import RunDirectory
from workers.training.confusion import draw_confusion
from workers.training.curves import draw_curves
from workers.training.loading import read_image
from workers.training.run_inputs import RunInputs
from workers.training.segmentation.evaluation import SegmentationEvaluation
from workers.training.segmentation.images import read_label_map

_MAX_WORST = 24  # images listed in report.json
_TILE_PX = 320


def write_report(
    run: RunDirectory,
    evaluation: SegmentationEvaluation,
    *,
    inputs: RunInputs,
    best: BestEpoch | None,
) -> None:
    """Writes report.json, confusion.png, mistakes.png, and curves.png unless `best` is None.

    best: None if nothing was trained.
    """
    categories, images = inputs.config.categories, inputs.val_images
    run.report.mkdir(exist_ok=True)
    order = sorted(range(len(images)), key=lambda index: (evaluation.accuracies[index], index))[:_MAX_WORST]
    content = {
        "format_version": 1,
        "task": "segmentation",
        "metrics": evaluation.metrics,
        "best_epoch": best.epoch if best else None,
        "weakness": evaluation.weakness,
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
    draw_confusion(evaluation.matrix, categories, inputs.fonts).savefig(run.report / "confusion.png", dpi=100)
    replace_file(run.report / "mistakes.png", _gallery(evaluation, inputs))
    if best is not None:
        labels = {"val/miou": "mean IoU", "val/pixel_accuracy": "pixel accuracy"}
        curves = draw_curves(run.read_metrics(), best, title="Validation", metrics=labels)
        curves.savefig(run.report / "curves.png", dpi=100)


def _gallery(evaluation: SegmentationEvaluation, inputs: RunInputs) -> bytes:
    """Draws the images with the lowest accuracy: truth on the left, prediction on the right."""
    tiles = []
    for index in sorted(evaluation.worst, key=lambda number: (evaluation.accuracies[number], number)):
        image = inputs.val_images[index]
        small = resize_longer_side(to_picture(read_image(inputs.root, image)), _TILE_PX)
        truth = read_label_map(inputs.root, image).numpy()
        accuracy = f"{evaluation.accuracies[index]:.1%} of the pixels correct"
        for label_map, title in ((truth, "truth"), (evaluation.worst[index].numpy(), "prediction")):
            drawn = draw_label_map(small, label_map, inputs.config.categories)
            tiles.append(Tile(image=drawn, caption=f"{image.name.rpartition('/')[2]}\n{title}, {accuracy}"))
    tiles.append(Tile(image=legend(inputs.config.categories, _TILE_PX, inputs.fonts, first=0), caption="Colours"))
    return contact_sheet(tiles, inputs.fonts, columns=4, tile_px=_TILE_PX)
