"""A job: what a caller makes and watches. Pure: no Redis, no files, no clock."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from workers.configs.evaluate import ResolvedEvaluate
from workers.configs.fine_tune import ResolvedFineTune
from workers.errors import IllegalTransition

JobType = Literal["fine_tune", "evaluate"]
AnyConfig = Annotated[ResolvedFineTune | ResolvedEvaluate, Field(discriminator="type")]


class JobStatus(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Nothing happens to the job any more, unless someone retries it."""
        return self in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


# running -> queued: the run was lost or handed back, and goes on from its last checkpoint.
# failed, cancelled -> queued: a person retries it.
TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    JobStatus.QUEUED: frozenset({JobStatus.RUNNING, JobStatus.CANCELLED}),
    JobStatus.RUNNING: frozenset({JobStatus.QUEUED, JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED}),
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset({JobStatus.QUEUED}),
    JobStatus.CANCELLED: frozenset({JobStatus.QUEUED}),
}


def check_transition(job_id: str, old: JobStatus, new: JobStatus) -> None:
    """Raises IllegalTransition if a job cannot go from `old` to `new`."""
    if new not in TRANSITIONS[old]:
        allowed = ", ".join(sorted(TRANSITIONS[old])) or "nothing: it has ended"
        raise IllegalTransition(
            f"Job {job_id} is {old} and cannot become {new}.", hint=f"From {old} a job can become: {allowed}."
        )


class JobFailure(BaseModel):
    """Why a run failed, in words a person can act on."""

    model_config = ConfigDict(frozen=True)

    code: str = Field(
        description="Stable: `out_of_memory`, `non_finite_loss`, `disk_full`, `bad_data`, `worker_lost`, …"
    )
    message: str
    hint: str | None = None


class JobProgress(BaseModel):
    """How far a run is."""

    model_config = ConfigDict(frozen=True)

    epoch: int = Field(0, description="Epochs finished.")
    epochs: int = Field(0, description="Epochs there will be.")
    step: int = Field(0, description="Optimizer updates done, over all epochs.")
    steps: int = Field(0, description="Optimizer updates there will be, over all epochs.")
    fraction: float = Field(0.0, ge=0, le=1)
    eta_s: float | None = Field(None, description="Seconds left, at the pace so far; null before the first step.")
    images_per_s: float | None = Field(None, description="Training images a second, lately.")


class BestEpoch(BaseModel):
    """The best epoch so far by the metric that decides."""

    model_config = ConfigDict(frozen=True)

    metric: str
    value: float
    epoch: int
    loss: float = Field(
        description="`val/loss`; of two epochs with the same value the one with the smaller loss is best."
    )


class JobResult(BaseModel):
    """What a job that succeeded left behind."""

    model_config = ConfigDict(frozen=True)

    model: str = Field(description="Name of the published model, or of the evaluated one.")
    version: int | None = Field(description="Null for pretrained weights, which have none.")
    metrics: dict[str, float]
    promoted: bool = Field(False, description="Whether its `production` alias was moved to this version.")
    promotion: str = Field("Nothing was trained.", description="Why it was promoted or was not.")

    @property
    def reference(self) -> str:
        """`name/version`, as requests spell it."""
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
    attempt: int = Field(0, description="Runs started so far, the present one included.")
    max_attempts: int = Field(3, description="Runs that may be lost before the job fails.")
    config: AnyConfig
    progress: JobProgress = JobProgress()
    metrics: dict[str, float] = Field(default_factory=dict, description="Newest value of every metric.")
    best: BestEpoch | None = None
    result: JobResult | None = None
    error: JobFailure | None = None
    worker: str | None = Field(None, description="Who runs it.")
    stop_requested: bool = False
    cancel_requested: bool = False
    request_id: str | None = Field(None, description="X-Request-ID of the call that made it.")


class JobEvent(BaseModel):
    """Something that happened to a job. Ids ascend within a job."""

    model_config = ConfigDict(frozen=True)

    id: str
    at: datetime
    type: Literal["status", "progress", "metrics", "message"]
    data: dict[str, Any]


def status_event(job: Job) -> tuple[str, dict[str, Any]]:
    """The type and data of the event that says where a job stands now."""
    data: dict[str, Any] = {"status": job.status.value, "attempt": job.attempt}
    if job.error is not None:
        data["error"] = job.error.model_dump(mode="json")
    if job.result is not None:
        data["result"] = job.result.model_dump(mode="json")
    return "status", data
