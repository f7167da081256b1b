"""A job: what a caller creates and watches. This module uses no Redis, no files and no clock."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from workers.configs.evaluate import EvaluateConfig, ResolvedEvaluate
from workers.configs.fine_tune import FineTuneConfig, ResolvedFineTune
from workers.errors import IllegalTransition

JobType = Literal["fine_tune", "evaluate"]
JobConfig = FineTuneConfig | EvaluateConfig  # what a caller writes
AnyConfig = Annotated[ResolvedFineTune | ResolvedEvaluate, Field(discriminator="type")]  # what the trainer reads


class JobStatus(StrEnum):
    """The status of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """True if the job has ended. It can then change only by a retry."""
        return self in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


# running -> queued: the run was lost or handed back, and continues from its last checkpoint.
# failed, cancelled -> queued: a person retries the job.
TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.CANCELLED}),
    JobStatus.RUNNING: frozenset({JobStatus.QUEUED, JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset({JobStatus.QUEUED}),
    JobStatus.CANCELLED: frozenset({JobStatus.QUEUED}),
}


def check_transition(job_id: str, old: JobStatus, new: JobStatus) -> None:
    """Raises IllegalTransition if a job cannot change from `old` to `new`."""
    if new not in TRANSITIONS[old]:
        allowed = ", ".join(sorted(TRANSITIONS[old]))
        hint = f"A job that is {old} can become {allowed}." if allowed else f"A job that is {old} cannot change."
        raise IllegalTransition(f"Job {job_id} is {old} and cannot become {new}.", hint=hint)


class JobFailure(BaseModel):
    """Why a run failed, and what to do."""

    model_config = ConfigDict(frozen=True)

    code: str = Field(
        description="Stable: `out_of_memory`, `non_finite_loss`, `disk_full`, `bad_data`, `worker_lost`, …"
    )
    message: str
    hint: str | None = None


class JobProgress(BaseModel):
    """How far a run has come."""

    model_config = ConfigDict(frozen=True)

    epoch: int = Field(0, description="Finished epochs.")
    epochs: int = Field(0, description="Epochs of the whole run.")
    step: int = Field(0, description="Finished optimizer updates, over all epochs.")
    steps: int = Field(0, description="Optimizer updates of the whole run, over all epochs.")
    fraction: float = Field(0.0, ge=0, le=1, description="Finished part of the run.")
    eta_s: float | None = Field(
        None, description="Estimated seconds until the end of training; null before the first step."
    )
    images_per_s: float | None = Field(None, description="Training images per second in this attempt.")


class BestEpoch(BaseModel):
    """The best epoch so far."""

    model_config = ConfigDict(frozen=True)

    metric: str = Field(description="The metric that decides. Larger is better, except for `val/loss`.")
    value: float = Field(description="Value of that metric.")
    epoch: int
    loss: float = Field(
        description="`val/loss`. If two epochs have the same value, the one with the smaller loss wins."
    )


class JobResult(BaseModel):
    """The result of a job that succeeded."""

    model_config = ConfigDict(frozen=True)

    model: str = Field(description="Name of the published model, or of the evaluated one.")
    version: int | None = Field(description="Version of the model; null for pretrained weights, which have none.")
    metrics: dict[str, float]
    promoted: bool = Field(False, description="True if the alias `production` of the model is this version.")
    weakness: str | None = Field(
        None,
        description="Why the model is useless: it answers one category only, or is no better than chance.",
    )
    promotion: str = Field("Nothing was trained.", description="Why the version was or was not promoted.")

    @property
    def reference(self) -> str:
        """`name/version`, as in requests."""
        return self.model if self.version is None else f"{self.model}/{self.version}"


class Job(BaseModel):
    """A job as callers see it."""

    model_config = ConfigDict(frozen=True)

    id: str
    type: JobType = "fine_tune"
    status: JobStatus = JobStatus.QUEUED
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempt: int = Field(0, description="Number of attempts so far, including the current one.")
    max_attempts: int = Field(3, description="Number of attempts that may be lost before the job fails.")
    config: AnyConfig
    progress: JobProgress = JobProgress()
    metrics: dict[str, float] = Field(default_factory=dict, description="Latest value of every metric.")
    best: BestEpoch | None = None
    result: JobResult | None = None
    error: JobFailure | None = None
    worker: str | None = Field(None, description="The worker that runs the job: `host:pid`.")
    stop_requested: bool = False
    cancel_requested: bool = False
    request_id: str | None = Field(None, description="X-Request-ID of the request that created the job.")


class JobEvent(BaseModel):
    """Something that happened to a job. The ids of its events are in ascending order."""

    model_config = ConfigDict(frozen=True)

    id: str
    at: datetime
    type: Literal["status", "progress", "metrics", "message"]
    data: dict[str, Any]


def status_event(job: Job) -> tuple[str, dict[str, Any]]:
    """Returns the type and the data of an event with the current status of a job."""
    data: dict[str, Any] = {"status": job.status.value, "attempt": job.attempt}
    if job.error is not None:
        data["error"] = job.error.model_dump(mode="json")
    if job.result is not None:
        data["result"] = job.result.model_dump(mode="json")
    return "status", data
