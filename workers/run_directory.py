"""A run is a directory: every file in it, who writes it, and how it is read. No torch here.

runs/<job_id>/
  config.json          RunConfig: all the trainer needs (worker)
  job.json             the job as last mirrored, to rebuild Redis from (job store)
  lease.json           the fencing token of the attempt that may write (worker)
  run.lock             held by the one trainer that runs (trainer)
  stop, hand_back      requests to the trainer: finish early; checkpoint and leave (worker)
  handed_back.json     the fencing token of an attempt that stopped at a checkpoint, as asked (worker)
  metrics.jsonl        series, append only; of two lines with one step the later counts (trainer)
  events.jsonl         what the worker mirrors to Redis, append only (trainer)
  train.log            the trainer's stdout and stderr (trainer)
  tensorboard/         event files (trainer)
  checkpoints/         last.pt: everything needed to resume; best.safetensors: weights to publish (trainer)
  report/              report.json and pictures (trainer)
  result.json          RunResult, written last: the run is complete (trainer)
  failure.json         RunFailure: why it is not (trainer)
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
    """All the trainer needs besides the data set store, the registry and the weights cache."""

    model_config = ConfigDict(frozen=True)

    format_version: Literal[1] = 1
    job_id: str
    job: AnyConfig
    device: str = "auto"
    allow_download: bool = Field(True, description="Whether pretrained weights may be fetched.")
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
    """How the version in production does on the validation split of this run."""

    model_config = ConfigDict(frozen=True)

    reference: str = Field(description="`name/version`.")
    metrics: dict[str, float] = Field(description="Empty if it could not be compared.")
    reason: str | None = Field(None, description="Why it could not be compared.")


class RunResult(BaseModel):
    """What a complete run says of itself."""

    model_config = ConfigDict(frozen=True)

    metrics: dict[str, float] = Field(description="Of the best epoch.")
    decisive_metric: str = Field(description="The metric that chose the best epoch; larger is better.")
    best_epoch: int = Field(description="0 if nothing was trained.")
    epochs: int = Field(description="Epochs trained.")
    stopped_early: bool
    device: str
    precision: str
    libraries: dict[str, str]
    comparison: Comparison | None = None


class RunFailure(JobFailure):
    """Why a trainer gave up."""

    is_worth_retrying: bool = Field(False, description="Whether the same run might succeed if it is simply run again.")


class Line(BaseModel):
    """One line of `events.jsonl`."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    type: Literal["progress", "metrics", "message"]
    data: dict[str, Any]


class MetricLine(BaseModel):
    """One line of `metrics.jsonl`."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    epoch: int = Field(description="Epochs finished, the one this belongs to included.")
    step: int = Field(description="Optimizer updates done.")
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunDirectory:
    """The paths of one run, and readers of its files."""

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
        """Raises FileNotFoundError, or pydantic's ValidationError for a file that was tampered with."""
        return RunConfig.model_validate_json(self.config.read_bytes())

    def read_result(self) -> RunResult | None:
        """The result, if the run is complete."""
        return _read_if_there(RunResult, self.result)

    def read_failure(self) -> RunFailure | None:
        """Why the last attempt gave up, if it did and could say."""
        return _read_if_there(RunFailure, self.failure)

    def write_fence(self, token: int) -> None:
        """From now on only the attempt with this fencing token may write what counts."""
        replace_file(self.lease, json.dumps({"token": token}).encode())

    def read_fence(self) -> int | None:
        """The fencing token that may write; None when the run is driven by hand."""
        try:
            return int(json.loads(self.lease.read_bytes())["token"])
        except FileNotFoundError:
            return None

    def note_handed_back(self, token: int) -> None:
        """The attempt with this fencing token stopped in good order, at a checkpoint."""
        replace_file(self.handed_back, json.dumps({"token": token}).encode())

    def was_handed_back(self, token: int) -> bool:
        """Whether the attempt with this fencing token stopped in good order."""
        try:
            return int(json.loads(self.handed_back.read_bytes())["token"]) == token
        except FileNotFoundError:
            return False

    def read_metrics(self) -> list[MetricLine]:
        """The series in order of steps; a step that was trained twice (after a crash) counts once, as trained last."""
        newest: dict[tuple[int, frozenset[str]], MetricLine] = {}
        for text in _whole_lines(self.metrics):
            line = MetricLine.model_validate_json(text)
            newest[line.step, frozenset(line.metrics)] = line
        return sorted(newest.values(), key=lambda line: line.step)


@dataclass(kw_only=True, slots=True)
class EventTail:
    """Reads the lines that were added to `events.jsonl` since the last look."""

    path: Path
    offset_bytes: int = 0

    def read(self) -> list[Line]:
        """New whole lines; a line that is still being written waits for the next look."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset_bytes)
                content = file.read()
        except FileNotFoundError:
            return []
        end = content.rfind(b"\n") + 1
        self.offset_bytes += end
        return [Line.model_validate_json(text) for text in content[:end].splitlines()]


def _read_if_there(kind: type[ModelT], path: Path) -> ModelT | None:
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None


def _whole_lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))
    except FileNotFoundError:
        return
