"""Jobs for workers: claim a job, renew its lease, record its events, end it, and find jobs whose worker was lost.

Celery delivers a message at least once, so a message is only a hint that a job may be queued. The claim decides: it is
one atomic step from queued to running that takes a lease and a new fencing token. Every later write checks the token.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from workers.errors import UnknownJob, WorkersError
from workers.jobs.job import (
    BestEpoch,
    Job,
    JobFailure,
    JobProgress,
    JobResult,
    JobStatus,
    check_transition,
    status_event,
)
from workers.jobs.mirror import read_mirror
from workers.jobs.record import JobChange, JobRecord, now, now_ms
from workers.jobs.records import JobRecords
from workers.run_directory import EventLine


class LeaseLost(WorkersError):
    """This attempt may no longer write: another attempt has the job, or the job has ended or was deleted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """The right of one attempt to run a job."""

    job: Job
    token: int  # fencing token: unique, and larger for a later attempt
    owner: str  # the worker
    mirrored_bytes: int  # of events.jsonl that are already in the event stream


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestedActions:
    """The actions that callers have requested for a running job."""

    cancel: bool
    stop: bool  # finish early and publish the best weights


class Leases:
    """The methods of workers on jobs. Every method raises StoreUnavailable if Redis is unreachable."""

    def __init__(self, records: JobRecords) -> None:
        self._records = records

    def claim(self, job_id: str, owner: str) -> Claim | None:
        """Claims a queued job. Returns None if the job is not queued; its message is out of date then."""

        def decide(record: JobRecord) -> JobChange:
            job = record.job
            if job.status is not JobStatus.QUEUED:
                raise LeaseLost(f"Job {job_id} is {job.status}.")
            started = {"attempt": job.attempt + 1, "worker": owner, "started_at": job.started_at or now()}
            return replace(_transition(job, JobStatus.RUNNING, **started), token=record.token + 1, take_lease=owner)

        try:
            record = self._records.change(job_id, decide)
        except (LeaseLost, UnknownJob):
            return None
        return Claim(job=record.job, token=record.token, owner=owner, mirrored_bytes=record.mirrored_bytes)

    def renew(self, claim: Claim) -> RequestedActions:
        """Renews the lease and returns what callers have requested. Raises LeaseLost."""
        try:
            record = self._records.read(claim.job.id)
        except UnknownJob:
            record = self._restore(claim)
        _check_fence(record, claim)
        self._records.extend_lease(claim.job.id, claim.owner)
        return RequestedActions(cancel=record.job.cancel_requested, stop=record.job.stop_requested)

    def record(self, claim: Claim, lines: list[EventLine], *, mirrored_bytes: int) -> Job:
        """Writes new event lines of the run to the job and to its event stream. Raises LeaseLost, UnknownJob."""

        def decide(record: JobRecord) -> JobChange:
            _check_fence(record, claim)
            events = tuple((line.type, {"at": line.at.isoformat(), **line.data}) for line in lines)
            return JobChange(job=_apply_lines(record.job, lines), events=events, mirrored_bytes=mirrored_bytes)

        has_metrics = any(line.type == "metrics" for line in lines)  # progress alone is not worth writing the mirror
        return self._records.change(claim.job.id, decide, mirror=has_metrics).job

    def succeed(self, claim: Claim, result: JobResult) -> Job:
        """Ends the job with a result. Raises LeaseLost, UnknownJob."""
        return self._end(claim, JobStatus.SUCCEEDED, result=result)

    def fail(self, claim: Claim, failure: JobFailure) -> Job:
        """Ends the job with a failure. Raises LeaseLost, UnknownJob."""
        return self._end(claim, JobStatus.FAILED, error=failure)

    def cancel(self, claim: Claim) -> Job:
        """Ends the job because a caller cancelled it. Raises LeaseLost, UnknownJob."""
        return self._end(claim, JobStatus.CANCELLED)

    def requeue(self, claim: Claim, *, reason: str, lost: JobFailure | None = None) -> Job:
        """Queues the job again, to continue from its last checkpoint. The caller then has to send it to a worker.

        lost: why the attempt was lost. A lost attempt counts, and the job fails after `max_attempts` of them. Without
        `lost`, the run was handed back in good order, and the attempt does not count.
        Raises LeaseLost, UnknownJob.
        """

        def decide(record: JobRecord) -> JobChange:
            _check_fence(record, claim)
            return _requeued(record.job, reason=reason, lost=lost)

        return self._records.change(claim.job.id, decide).job

    def end_lost_attempts(self) -> list[Job]:
        """Ends the attempt of every running job whose lease has expired. Returns these jobs, queued again or failed.

        Returns [] if Redis has run for less than one lease: the workers may not have had time to renew their leases.
        """
        if self._records.uptime_s() < self._records.lease_s:
            return []

        def decide(record: JobRecord) -> JobChange:
            job = record.job
            if job.status is not JobStatus.RUNNING or self._records.has_lease(job.id):
                raise LeaseLost(f"Job {job.id} is not lost.")
            if self._records.run(job.id).was_handed_back(record.token):
                return _requeued(job, reason="The run continues from where its worker handed it back.", lost=None)
            lost = JobFailure(
                code="worker_lost",
                message=f"The worker {job.worker} was lost in attempt {job.attempt} of {job.max_attempts}.",
                hint="Look at the log of the worker: it was killed, or its machine or its connection failed.",
            )
            return _requeued(job, reason=lost.message, lost=lost)

        ended = []
        for record in self._records.all():
            if record.job.status is JobStatus.RUNNING:
                try:
                    ended.append(self._records.change(record.job.id, decide).job)
                except (LeaseLost, UnknownJob):
                    continue
        return ended

    def unsent_jobs(self, *, older_than_s: float) -> list[str]:
        """Ids of queued jobs without a message, oldest first: the message was lost with Redis, or never sent.

        Returns [] unless the queue is empty, because only then no job can have a message. One message too many does no
        harm.
        """
        if self._records.queue_depth():
            return []
        limit_ms = now_ms() - int(older_than_s * 1000)
        waiting = [record for record in self._records.all() if record.job.status is JobStatus.QUEUED]
        waiting.sort(key=lambda record: (record.queued_ms, record.job.id))
        return [record.job.id for record in waiting if record.queued_ms <= limit_ms]

    def _end(self, claim: Claim, status: JobStatus, **fields: Any) -> Job:
        def decide(record: JobRecord) -> JobChange:
            _check_fence(record, claim)
            job = record.job
            if status is JobStatus.SUCCEEDED:  # also when it was stopped early: nothing is left to do
                fields["progress"] = job.progress.model_copy(update={"fraction": 1.0, "eta_s": 0.0})
            return replace(_transition(job, status, finished_at=now(), **fields), drop_lease=True)

        return self._records.change(claim.job.id, decide).job

    def _restore(self, claim: Claim) -> JobRecord:
        """Restores a job that Redis lost while it was running."""
        record = read_mirror(self._records.run(claim.job.id))
        if record is None:
            raise LeaseLost(f"Job {claim.job.id} was deleted.")
        self._records.add(record)  # does nothing if another worker has restored the job
        return self._records.read(claim.job.id)


def _transition(job: Job, status: JobStatus, **fields: Any) -> JobChange:
    check_transition(job.id, job.status, status)
    changed = job.model_copy(update={"status": status, **fields})
    return JobChange(job=changed, events=(status_event(changed),))


def _requeued(job: Job, *, reason: str, lost: JobFailure | None) -> JobChange:
    if job.cancel_requested:
        change = _transition(job, JobStatus.CANCELLED, finished_at=now())
    elif lost is not None and job.attempt >= job.max_attempts:
        change = _transition(job, JobStatus.FAILED, error=lost, finished_at=now())
    else:
        attempt = job.attempt if lost is not None else job.attempt - 1
        change = _transition(job, JobStatus.QUEUED, attempt=attempt, worker=None)
    message = ("message", {"message": reason})
    return replace(change, drop_lease=True, events=(message, *change.events))


def _apply_lines(job: Job, lines: list[EventLine]) -> Job:
    progress, metrics, best = job.progress, dict(job.metrics), job.best
    for line in lines:
        if line.type == "progress":
            progress = JobProgress.model_validate(line.data)
        elif line.type == "metrics":
            metrics.update(line.data["metrics"])
            best = BestEpoch.model_validate(line.data["best"])
    return job.model_copy(update={"progress": progress, "metrics": metrics, "best": best})


def _check_fence(record: JobRecord, claim: Claim) -> None:
    if record.token != claim.token or record.job.status is not JobStatus.RUNNING:
        raise LeaseLost(f"Job {claim.job.id} is {record.job.status} and belongs to another attempt.")
