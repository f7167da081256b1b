"""Truth against prediction, counted and drawn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from models.drawing.fonts import Fonts
from workers.training.figure_labels import figure_labels

LARGEST_LABELLED_MATRIX = 30  # categories; beyond that numbers and labels are not legible
_LARGEST_COUNT = 10_000  # longer numbers do not fit: then the share of the row is written


def confusion_matrix(targets: Tensor, predicted: Tensor, categories: int) -> Tensor:
    """int64 [K, K] of int64 targets [N] (rows) and predictions [N] (columns)."""
    return torch.bincount(targets * categories + predicted, minlength=categories**2).view(categories, categories)


def draw_confusion(matrix: Tensor, categories: Sequence[str], fonts: Fonts) -> Figure:
    """Truth against prediction, each row scaled to its number of images."""
    with figure_labels(categories, fonts) as labels:
        return _draw(matrix, labels)


def _draw(matrix: Tensor, labels: Sequence[str]) -> Figure:
    shares = matrix / matrix.sum(dim=1, keepdim=True).clamp(min=1)
    is_labelled = len(labels) <= LARGEST_LABELLED_MATRIX
    side = max(4.0, 0.45 * len(labels) + 2) if is_labelled else 10.0
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the row")
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    if is_labelled:
        ticks = range(len(labels))
        axes.set_xticks(ticks, labels, rotation=90 if max(map(len, labels)) > 2 else 0)
        axes.set_yticks(ticks, labels)
        is_counted = int(matrix.max()) < _LARGEST_COUNT

        def words(row: int, column: int) -> str:
            return str(int(matrix[row, column])) if is_counted else f"{shares[row, column]:.2f}"

        for row in ticks:
            for column in ticks:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, words(row, column), ha="center", va="center", color=colour)
    return figure
