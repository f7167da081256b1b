"""Draws the curves of a report: losses and the most important metrics by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from workers.jobs.job import BestEpoch
from workers.run_directory import MetricLine


def draw_curves(lines: Sequence[MetricLine], best: BestEpoch, *, title: str, metrics: Mapping[str, str]) -> Figure:
    """Draws the losses on the left and `metrics` on the right. metrics: metric key -> label; values are in [0, 1].

    An epoch that a stop request ended lies between the whole ones, at its finished part.
    """
    epochs = [line for line in lines if "val/loss" in line.metrics]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, label in (("train/loss", "training"), ("val/loss", "validation")):
        left.plot([_place(line) for line in epochs], [line.metrics[name] for line in epochs], marker="o", label=label)
    for number, (name, label) in enumerate(metrics.items(), start=1):
        known = [line for line in epochs if name in line.metrics]
        values = [line.metrics[name] for line in known]
        right.plot([_place(line) for line in known], values, marker="o", color=f"C{number}", label=label)
    place = next((_place(line) for line in epochs if line.epoch == best.epoch), best.epoch)
    right.axvline(place, color="0.6", linestyle=":", label=f"best: {best.value:.4f} in epoch {best.epoch}")
    right.set_ylim(0, 1.02)
    for axes, heading in ((left, "Loss"), (right, title)):
        axes.set_title(heading)
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def _place(line: MetricLine) -> float:
    """The place of a line's metrics on the axis, in epochs."""
    return line.epoch - 1 + line.fraction
