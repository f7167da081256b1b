"""A run is a directory. This module names its files and reads them. Needs no torch.

runs/<job_id>/         (who writes it)
  config.json          RunConfig: all that the trainer needs (worker)
  job.json             the mirror of the job, to restore Redis from (job store)
  lease.json           the fencing token of the attempt that may write (worker)
  run.lock             a lock that the running trainer holds (trainer)
  stop, hand_back      requests to the trainer: finish early; save a checkpoint and exit (worker)
  handed_back.json     the fencing token of an attempt that stopped at a checkpoint, as requested (worker)
  metrics.jsonl        metrics, append only; if two lines have the same step, the later one counts (trainer)
  events.jsonl         events that the worker relays to Redis, append only (trainer)
  train.log            stdout and stderr of the trainer (trainer)
  tensorboard/         event files (trainer)
  checkpoints/         last.pt: everything needed to resume; best.safetensors: weights to publish (trainer)
  report/              report.json and drawings (trainer)
  result.json          RunResult, written last: the run is complete (trainer)
  failure.json         RunFailure: why the run failed (trainer)
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from models.store.storage import replace_file
from workers.configs.fine_tune import ResolvedFineTune
from workers.jobs.job import AnyConfig, JobFailure

ModelT = TypeVar("ModelT", bound=BaseModel)


class RunConfig(BaseModel):
    """All that the trainer needs, besides the dataset store, the registry and the cache of pretrained weights."""

    model_config = ConfigDict(frozen=True)

    format_version: Literal[1] = 1
    job_id: str
    job: AnyConfig
    device: str = "auto"
    allow_download: bool = Field(True, description="True if pretrained weights may be downloaded.")
    font: Path | None = Field(None, description="Font file for the labels in the report; null finds one.")
    checkpoint_interval_s: float = Field(
        300.0, gt=0, description="Longest time between two checkpoints within an epoch."
    )

    @property
    def fine_tune(self) -> ResolvedFineTune:
        """The configuration of a run that trains."""
        assert isinstance(self.job, ResolvedFineTune)
        return self.job


class Comparison(BaseModel):
    """The metrics of the version in production on the validation split of this run."""

    model_config = ConfigDict(frozen=True)

    reference: str = Field(description="The version in production, as `name/version`.")
    metrics: dict[str, float] = Field(description="Empty if the comparison failed.")
    reason: str | None = Field(None, description="Why the comparison failed.")


class RunResult(BaseModel):
    """The result of a complete run."""

    model_config = ConfigDict(frozen=True)

    metrics: dict[str, float] = Field(description="Metrics of the best epoch.")
    decisive_metric: str = Field(description="The metric that chose the best epoch.")
    best_epoch: int = Field(description="0 if nothing was trained.")
    epochs: int = Field(description="Trained epochs.")
    stopped_early: bool = Field(description="True if a caller stopped the job before its last epoch.")
    device: str
    precision: str
    libraries: dict[str, str]
    comparison: Comparison | None = None
    weakness: str | None = Field(None, description="Why the model is useless; null if it is better than chance.")


class RunFailure(JobFailure):
    """Why a trainer gave up."""

    is_worth_retrying: bool = Field(False, description="True if the same run may succeed when it is run again.")


class EventLine(BaseModel):
    """One line of `events.jsonl`."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    type: Literal["progress", "metrics", "message"]
    data: dict[str, Any]


class MetricLine(BaseModel):
    """One line of `metrics.jsonl`."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    epoch: int = Field(description="The epoch that the metrics belong to; the first one is 1.")
    step: int = Field(description="Finished optimizer updates, over all epochs.")
    metrics: dict[str, float]
    fraction: float = Field(1.0, description="Finished part of the epoch: below 1 if a stop request ended it.")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunDirectory:
    """The paths of the files of one run, and methods to read them."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def job(self) -> Path:
        return self.path / "job.json"

    @property
    def lease(self) -> Path:
        return self.path / "lease.json"

    @property
    def lock(self) -> Path:
        return self.path / "run.lock"

    @property
    def stop_request(self) -> Path:
        return self.path / "stop"

    @property
    def hand_back_request(self) -> Path:
        return self.path / "hand_back"

    @property
    def handed_back(self) -> Path:
        return self.path / "handed_back.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "train.log"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        return self.checkpoints / "last.pt"

    @property
    def best_weights(self) -> Path:
        return self.checkpoints / "best.safetensors"

    @property
    def report(self) -> Path:
        return self.path / "report"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def failure(self) -> Path:
        return self.path / "failure.json"

    def read_config(self) -> RunConfig:
        """Reads config.json. Raises FileNotFoundError, or pydantic's ValidationError if the file is invalid."""
        return RunConfig.model_validate_json(self.config.read_bytes())

    def read_result(self) -> RunResult | None:
        """Returns the result, or None if the run is not complete."""
        return _read_if_exists(RunResult, self.result)

    def read_failure(self) -> RunFailure | None:
        """Returns why the last attempt failed, or None."""
        return _read_if_exists(RunFailure, self.failure)

    def write_fence(self, token: int) -> None:
        """Gives the right to write to the attempt with this fencing token, and takes it from all others."""
        replace_file(self.lease, json.dumps({"token": token}).encode())

    def read_fence(self) -> int | None:
        """Returns the fencing token of the attempt that may write, or None if the run was started by hand."""
        try:
            return int(json.loads(self.lease.read_bytes())["token"])
        except FileNotFoundError:
            return None

    def mark_handed_back(self, token: int) -> None:
        """Records that the attempt with this fencing token stopped at a checkpoint, as requested."""
        replace_file(self.handed_back, json.dumps({"token": token}).encode())

    def was_handed_back(self, token: int) -> bool:
        """Returns True if the attempt with this fencing token stopped at a checkpoint, as requested."""
        try:
            return int(json.loads(self.handed_back.read_bytes())["token"]) == token
        except FileNotFoundError:
            return False

    def read_metrics(self) -> list[MetricLine]:
        """Returns the metrics in the order of steps. If a crash made a step run twice, the later line counts."""
        newest: dict[tuple[int, frozenset[str]], MetricLine] = {}
        for text in _complete_lines(self.metrics):
            line = MetricLine.model_validate_json(text)
            newest[line.step, frozenset(line.metrics)] = line
        return sorted(newest.values(), key=lambda line: line.step)


@dataclass(kw_only=True, slots=True)
class EventTail:
    """Reads the lines that were added to `events.jsonl` since the last read."""

    path: Path
    offset_bytes: int = 0

    def read(self) -> list[EventLine]:
        """Returns the new complete lines. An incomplete last line is left for the next read."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset_bytes)
                content = file.read()
        except FileNotFoundError:
            return []
        end = content.rfind(b"\n") + 1
        self.offset_bytes += end
        return [EventLine.model_validate_json(text) for text in content[:end].splitlines()]


def _read_if_exists(kind: type[ModelT], path: Path) -> ModelT | None:
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None


def _complete_lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))
    except FileNotFoundError:
        return
