"""Writes the metrics and events of a running run: metrics.jsonl, events.jsonl and the event files of TensorBoard."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from pydantic import BaseModel
from torch.utils.tensorboard import SummaryWriter

from workers.jobs.job import BestEpoch, JobProgress
from workers.run_directory import EventLine, MetricLine, RunDirectory

log = logging.getLogger(__name__)

PROGRESS_INTERVAL_S = 0.5


class Journal:
    """Appends lines to the files. Readers see only complete lines; a crash can lose the last one."""

    def __init__(self, run: RunDirectory, *, first_step: int) -> None:
        self._run = run
        # TensorBoard hides what a crashed attempt wrote after the checkpoint.
        self._board = SummaryWriter(str(run.tensorboard), purge_step=first_step, flush_secs=10)
        self._next_progress = 0.0

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._board.close()

    def progress(self, progress: JobProgress, *, is_due: bool = False) -> None:
        """Writes the progress: always if `is_due`, otherwise at most twice per second."""
        if is_due or time.monotonic() >= self._next_progress:
            self._next_progress = time.monotonic() + PROGRESS_INTERVAL_S
            self._event("progress", progress.model_dump())

    def step(self, *, epoch: int, step: int, loss: float, learning_rate: float) -> None:
        """Writes the training loss within an epoch. loss: the mean over the images of the latest steps."""
        self._append_metrics(epoch, step, {"train/step_loss": loss, "train/learning_rate": learning_rate})
        self._board.add_scalar("Loss/train", loss, step)
        self._board.add_scalar("Learning rate", learning_rate, step)

    def epoch(
        self, *, epoch: int, step: int, metrics: Mapping[str, float], best: BestEpoch, fraction: float = 1.0
    ) -> None:
        """Writes the metrics of a finished epoch, and the best epoch so far.

        fraction: of the epoch; below 1 if a stop request ended it. TensorBoard counts whole epochs, so it gets no
        point for such an epoch.
        """
        self._append_metrics(epoch, step, dict(metrics), fraction=fraction)
        if fraction == 1:
            losses = {"Training": metrics["train/loss"], "Validation": metrics["val/loss"]}
            self._board.add_scalars("Training vs. Validation Loss", losses, epoch)
            for name, value in metrics.items():
                self._board.add_scalar(name, value, epoch)
        self._board.flush()
        data = {"epoch": epoch, "step": step, "metrics": dict(metrics), "best": best.model_dump()}
        self._event("metrics", {**data, "fraction": fraction})
        log.info("epoch %d: %s", epoch, "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))

    def message(self, text: str) -> None:
        """Writes a message for people who watch the run."""
        log.info("%s", text)
        self._event("message", {"message": text})

    def _append_metrics(self, epoch: int, step: int, metrics: dict[str, float], *, fraction: float = 1.0) -> None:
        line = MetricLine(at=_now(), epoch=epoch, step=step, metrics=metrics, fraction=fraction)
        _append(self._run.metrics, line)

    def _event(self, kind: Literal["progress", "metrics", "message"], data: dict[str, Any]) -> None:
        _append(self._run.events, EventLine(at=_now(), type=kind, data=data))


def _append(path: Path, line: BaseModel) -> None:
    with path.open("ab") as file:
        file.write(line.model_dump_json().encode() + b"\n")


def _now() -> datetime:
    return datetime.now(UTC)
