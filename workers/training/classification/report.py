"""Writes the report of a classification run, as JSON and as drawings, so that a person can judge the model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from models.drawing.contact_sheet import Tile, contact_sheet
from models.drawing.fonts import Fonts
from models.images.decode import decode_image
from models.store.storage import replace_file
from workers.datasets.dataset import DatasetImage
from workers.jobs.job import BestEpoch
from workers.run_directory import RunDirectory
from workers.training.classification.evaluation import ClassificationEvaluation
from workers.training.confusion import confusion_matrix, draw_confusion
from workers.training.curves import draw_curves

MAX_MISTAKES = 24  # in the report


def write_report(
    run: RunDirectory,
    evaluation: ClassificationEvaluation,
    *,
    categories: Sequence[str],
    images: Sequence[DatasetImage],
    root: Path,
    fonts: Fonts,
    best: BestEpoch | None,
) -> None:
    """Writes report.json, confusion.png, mistakes.png if there are mistakes, and curves.png unless `best` is None.

    best: None if nothing was trained.
    """
    run.report.mkdir(exist_ok=True)
    predicted = evaluation.scores.argmax(dim=1)
    matrix = confusion_matrix(evaluation.targets, predicted, len(categories))
    mistakes = worst_mistakes(evaluation, predicted)
    content = {
        "format_version": 1,
        "task": "classification",
        "metrics": evaluation.metrics,
        "best_epoch": best.epoch if best else None,
        "weakness": evaluation.weakness,
        "categories": category_metrics(matrix, categories),
        "confusion_matrix": matrix.tolist(),  # row: truth, column: prediction
        "mistakes": [
            {
                "image": images[index].path,
                "truth": categories[int(evaluation.targets[index])],
                "prediction": categories[int(predicted[index])],
                "score": round(float(evaluation.scores[index, predicted[index]]), 4),
            }
            for index in mistakes
        ],
    }
    replace_file(run.report / "report.json", json.dumps(content, indent=1).encode())
    if best is not None:
        curves = draw_curves(run.read_metrics(), best, title="Validation accuracy", metrics={"val/top1": "top-1"})
        _save(curves, run.report / "curves.png")
    _save(draw_confusion(matrix, categories, fonts), run.report / "confusion.png")
    if mistakes:
        sheet = _mistakes_sheet(mistakes, evaluation, predicted, categories, images, root, fonts)
        replace_file(run.report / "mistakes.png", sheet)


def category_metrics(matrix: Tensor, categories: Sequence[str]) -> list[dict[str, float | int | str | None]]:
    """Returns precision, recall and F1 per category; None if the category has no predictions or no images."""
    rows: list[dict[str, float | int | str | None]] = []
    for index, label in enumerate(categories):
        hits, support, predicted = int(matrix[index, index]), int(matrix[index].sum()), int(matrix[:, index].sum())
        rows.append(
            {
                "label": label,
                "images": support,
                "precision": round(hits / predicted, 4) if predicted else None,
                "recall": round(hits / support, 4) if support else None,
                "f1": round(2 * hits / (support + predicted), 4) if support + predicted else None,
            }
        )
    return rows


def worst_mistakes(evaluation: ClassificationEvaluation, predicted: Tensor) -> list[int]:
    """Returns the indices of the images with wrong predictions, those with the highest scores first."""
    scores = evaluation.scores.gather(1, predicted.unsqueeze(1))[:, 0]  # [N]
    order = scores.argsort(descending=True, stable=True).tolist()
    wrong = [index for index in order if predicted[index] != evaluation.targets[index]]
    return wrong[:MAX_MISTAKES]


def _mistakes_sheet(
    mistakes: Sequence[int],
    evaluation: ClassificationEvaluation,
    predicted: Tensor,
    categories: Sequence[str],
    images: Sequence[DatasetImage],
    root: Path,
    fonts: Fonts,
) -> bytes:
    tiles = []
    for index in mistakes:
        truth, prediction = categories[int(evaluation.targets[index])], categories[int(predicted[index])]
        caption = f"{truth}, not {prediction} ({float(evaluation.scores[index, predicted[index]]):.2f})"
        tiles.append(Tile(image=decode_image((root / images[index].path).read_bytes()), caption=caption, good=False))
    return contact_sheet(tiles, fonts)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=100)
