"""Jobs: requests, and views of what a run wrote. A job itself is `workers.jobs.job.Job`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Discriminator, Field, Tag, field_validator

from app.schemas.page import Page
from workers.configs.evaluate import EvaluateConfig
from workers.configs.fine_tune import FineTuneConfig
from workers.jobs.job import AnyConfig, Job, JobEvent


def _is_unicode(value: object) -> object:
    if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
        msg = "half a surrogate pair is not a valid character"
        raise ValueError(msg)
    return value


class FineTuneRequest(FineTuneConfig):
    """A training job to make, or with `dry_run` only to plan."""

    dry_run: bool = Field(False, description="Queue nothing, and answer as `POST /v1/jobs/plan` does.")

    _unicode = field_validator("model", "weights", "dataset", "publish_as", "backbone_weights", mode="before")(
        _is_unicode
    )


class EvaluateRequest(EvaluateConfig):
    """An evaluation to make, or with `dry_run` only to plan."""

    dry_run: bool = Field(False, description="Queue nothing, and answer as `POST /v1/jobs/plan` does.")

    _unicode = field_validator("model", "dataset", mode="before")(_is_unicode)


def _type_of(body: object) -> str:
    """The job type that a body names; `fine_tune` if it names none."""
    kind = body.get("type", "fine_tune") if isinstance(body, dict) else getattr(body, "type", "fine_tune")
    return kind if isinstance(kind, str) else "?"


REQUESTS: dict[str, type[FineTuneRequest | EvaluateRequest]] = {
    "fine_tune": FineTuneRequest,
    "evaluate": EvaluateRequest,
}
JobRequest = Annotated[
    Annotated[FineTuneRequest, Tag("fine_tune")] | Annotated[EvaluateRequest, Tag("evaluate")],
    Discriminator(
        _type_of,
        custom_error_type="unknown_job_type",
        custom_error_message="Unknown job type",
        custom_error_context={"field": "type", "valid": ", ".join(map(repr, REQUESTS))},
    ),
]


class JobDetails(Job):
    """A job and its position in the queue."""

    position: int | None = Field(None, description="Jobs ahead of it in the queue; null unless it is queued.")


class JobPage(Page[Job]):
    """Jobs, newest first."""


class MemoryEstimate(BaseModel):
    """The memory that a run needs at least, computed from the number of parameters."""

    parameters_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    total_bytes: int
    basis: str = Field(description="What was counted, and what was not.")


class Estimate(BaseModel):
    """The size of a run, computed from network and dataset. It has no duration, which depends on the machine."""

    parameters: int = Field(description="Number of the network's parameters, with this dataset's categories.")
    trained_parameters: int = Field(description="How many of them the strategy trains.")
    train_images: int
    val_images: int
    steps_per_epoch: int
    steps: int = Field(description="Optimizer updates over all epochs.")
    images: int = Field(description="Training images processed over all epochs.")
    memory: MemoryEstimate


class JobPlan(BaseModel):
    """The resolved job, which was not queued."""

    config: AnyConfig
    estimate: Estimate | None = Field(None, description="Null if nothing is trained.")


class JobEvents(BaseModel):
    """Everything that happened to a job so far, oldest first."""

    data: list[JobEvent]


class MetricPoint(BaseModel):
    """Metrics at one moment of the run."""

    at: datetime
    epoch: int = Field(description="Epochs finished, the one this belongs to included.")
    step: int = Field(description="Optimizer updates so far.")
    metrics: dict[str, float]


class MetricHistory(BaseModel):
    """The series of a run, in order of steps."""

    data: list[MetricPoint]


class ReportFile(BaseModel):
    """One file of a report."""

    name: str = Field(description="Path relative to the report.")
    size_bytes: int
    media_type: str


class Report(BaseModel):
    """The files of a report."""

    data: list[ReportFile]


class Checkpoint(BaseModel):
    """A file that a run can resume from, or weights that it can publish."""

    name: str
    size_bytes: int
    written_at: datetime


class Checkpoints(BaseModel):
    """The checkpoints of a run, newest first."""

    data: list[Checkpoint]


class JobKind(BaseModel):
    """A kind of job."""

    name: str
    description: str
    json_schema: str = Field(description="Path of the JSON schema of its configuration.")


class JobTypes(BaseModel):
    """The kinds of jobs there are."""

    data: list[JobKind]
