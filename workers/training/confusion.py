"""Computes and draws confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from models.drawing.fonts import Fonts
from workers.training.figure_labels import figure_labels

MAX_LABELLED_CATEGORIES = 30  # with more categories, numbers and labels are not legible
_MAX_COUNT = 10_000  # longer numbers do not fit into a cell, so the cell shows the fraction of its row


def confusion_matrix(targets: Tensor, predicted: Tensor, categories: int) -> Tensor:
    """Counts int64 targets [N] (rows) and predictions [N] (columns): int64 [K, K]."""
    return torch.bincount(targets * categories + predicted, minlength=categories**2).view(categories, categories)


def draw_confusion(matrix: Tensor, categories: Sequence[str], fonts: Fonts) -> Figure:
    """Draws a confusion matrix: targets are rows, predictions are columns, and colours are fractions of the row."""
    with figure_labels(categories, fonts) as labels:
        return _draw(matrix, labels)


def _draw(matrix: Tensor, labels: Sequence[str]) -> Figure:
    shares = matrix / matrix.sum(dim=1, keepdim=True).clamp(min=1)
    is_labelled = len(labels) <= MAX_LABELLED_CATEGORIES
    side = max(4.0, 0.45 * len(labels) + 2) if is_labelled else 10.0
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="fraction of the row")
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    if is_labelled:
        ticks = range(len(labels))
        axes.set_xticks(ticks, labels, rotation=90 if max(map(len, labels)) > 2 else 0)
        axes.set_yticks(ticks, labels)
        is_counted = int(matrix.max()) < _MAX_COUNT

        def cell(row: int, column: int) -> str:
            return str(int(matrix[row, column])) if is_counted else f"{shares[row, column]:.2f}"

        for row in ticks:
            for column in ticks:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, cell(row, column), ha="center", va="center", color=colour)
    return figure
