"""The picture that every report has: loss and the decisive metrics by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from workers.jobs.job import BestEpoch
from workers.run_directory import MetricLine


def draw_curves(lines: Sequence[MetricLine], best: BestEpoch, *, title: str, metrics: Mapping[str, str]) -> Figure:
    """Losses on the left; on the right `metrics`, in [0, 1], by key with their words."""
    epochs = [line for line in lines if "val/loss" in line.metrics]
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, right = figure.subplots(1, 2)
    for name, words in (("train/loss", "training"), ("val/loss", "validation")):
        loss.plot([line.epoch for line in epochs], [line.metrics[name] for line in epochs], marker="o", label=words)
    for number, (name, words) in enumerate(metrics.items(), start=1):
        known = [line for line in epochs if name in line.metrics]
        values = [line.metrics[name] for line in known]
        right.plot([line.epoch for line in known], values, marker="o", color=f"C{number}", label=words)
    right.axvline(best.epoch, color="0.6", linestyle=":", label=f"best: {best.value:.4f} in epoch {best.epoch}")
    right.set_ylim(0, 1.02)
    for axes, words in ((loss, "Loss"), (right, title)):
        axes.set_title(words)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure
