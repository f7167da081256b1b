"""Jobs as workers see them: claim one, show signs of life, mirror its run, end it; find those whose worker was lost.

Delivery is at least once, so a message is only a hint that a job may be waiting. What counts is the claim: one
atomic step from queued to running that takes a lease and a new fencing token. Every later write checks that token.
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
from workers.jobs.record import Change, Record, now, now_ms
from workers.jobs.records import JobRecords
from workers.run_directory import Line


class LeaseLost(WorkersError):
    """The attempt may not write any more: the job was taken over, ended or deleted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """The right to run a job: no two attempts have the same token, and a later one has a larger one."""

    job: Job
    token: int
    owner: str
    mirrored_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Wishes:
    """What callers want of a running job."""

    cancel: bool
    stop: bool


class Leases:
    """Every method raises StoreUnavailable while Redis is away."""

    def __init__(self, records: JobRecords) -> None:
        self._records = records

    def claim(self, job_id: str, owner: str) -> Claim | None:
        """The right to run a queued job; None if it is not queued, so that the message is a stale one."""

        def decide(record: Record) -> Change:
            job = record.job
            if job.status is not JobStatus.QUEUED:
                raise LeaseLost(f"Job {job_id} is {job.status}.")
            started = {"attempt": job.attempt + 1, "worker": owner, "started_at": job.started_at or now()}
            return replace(_moved(job, JobStatus.RUNNING, **started), token=record.token + 1, take_lease=owner)

        try:
            record = self._records.change(job_id, decide)
        except (LeaseLost, UnknownJob):
            return None
        return Claim(job=record.job, token=record.token, owner=owner, mirrored_bytes=record.mirrored_bytes)

    def renew(self, claim: Claim) -> Wishes:
        """Shows a sign of life and reads what callers want. Raises LeaseLost."""
        try:
            record = self._records.read(claim.job.id)
        except UnknownJob:
            record = self._bring_back(claim)
        _check_fence(record, claim)
        self._records.extend_lease(claim.job.id, claim.owner)
        return Wishes(cancel=record.job.cancel_requested, stop=record.job.stop_requested)

    def record(self, claim: Claim, lines: list[Line], *, mirrored_bytes: int) -> Job:
        """Mirrors new lines of the run to the job and its events. Raises LeaseLost, UnknownJob."""

        def decide(record: Record) -> Change:
            _check_fence(record, claim)
            events = tuple((line.type, {"at": line.at.isoformat(), **line.data}) for line in lines)
            return Change(job=_with_lines(record.job, lines), events=events, mirrored_bytes=mirrored_bytes)

        has_news = any(line.type == "metrics" for line in lines)  # progress alone is not worth a file a second
        return self._records.change(claim.job.id, decide, mirror=has_news).job

    def succeed(self, claim: Claim, result: JobResult) -> Job:
        """Ends the job well. Raises LeaseLost, UnknownJob."""
        return self._end(claim, JobStatus.SUCCEEDED, result=result)

    def fail(self, claim: Claim, failure: JobFailure) -> Job:
        """Ends the job for good. Raises LeaseLost, UnknownJob."""
        return self._end(claim, JobStatus.FAILED, error=failure)

    def cancel(self, claim: Claim) -> Job:
        """Ends the job as a caller asked. Raises LeaseLost, UnknownJob."""
        return self._end(claim, JobStatus.CANCELLED)

    def give_back(self, claim: Claim, *, reason: str, lost: JobFailure | None = None) -> Job:
        """Queues the job again, to go on from its last checkpoint. Sending it to a worker is the caller's next step.

        With `lost` the attempt counts, and the last one that may be lost fails the job; an attempt that is handed back
        in good order does not count. Raises LeaseLost, UnknownJob.
        """

        def decide(record: Record) -> Change:
            _check_fence(record, claim)
            return _given_back(record.job, reason=reason, lost=lost)

        return self._records.change(claim.job.id, decide).job

    def take_lost_jobs(self) -> list[Job]:
        """Takes every running job whose lease ran out from its worker; returns them, queued again or failed.

        None while Redis is younger than a lease: the workers must have had the time to say that they live.
        """
        if self._records.uptime_s() < self._records.lease_s:
            return []

        def decide(record: Record) -> Change:
            job = record.job
            if job.status is not JobStatus.RUNNING or self._records.has_lease(job.id):
                raise LeaseLost(f"Job {job.id} is not lost.")
            if self._records.run(job.id).was_handed_back(record.token):
                return _given_back(job, reason="The run goes on from where its worker handed it back.", lost=None)
            lost = JobFailure(
                code="worker_lost",
                message=f"The worker {job.worker} was lost in attempt {job.attempt} of {job.max_attempts}.",
                hint="Look at the worker's log: it was killed, or its machine or its connection went away.",
            )
            return _given_back(job, reason=lost.message, lost=lost)

        taken = []
        for record in self._records.all():
            if record.job.status is JobStatus.RUNNING:
                try:
                    taken.append(self._records.change(record.job.id, decide).job)
                except (LeaseLost, UnknownJob):
                    continue
        return taken

    def unsent_jobs(self, *, older_than_s: float) -> list[str]:
        """Queued jobs that no message stands for, oldest first: it was lost with Redis, or never sent.

        Only when the queue is empty can that be known; a message too many does no harm.
        """
        if self._records.queue_depth():
            return []
        limit_ms = now_ms() - int(older_than_s * 1000)
        waiting = [record for record in self._records.all() if record.job.status is JobStatus.QUEUED]
        waiting.sort(key=lambda record: (record.queued_ms, record.job.id))
        return [record.job.id for record in waiting if record.queued_ms <= limit_ms]

    def _end(self, claim: Claim, status: JobStatus, **fields: Any) -> Job:
        def decide(record: Record) -> Change:
            _check_fence(record, claim)
            return replace(_moved(record.job, status, finished_at=now(), **fields), drop_lease=True)

        return self._records.change(claim.job.id, decide).job

    def _bring_back(self, claim: Claim) -> Record:
        """The record of a job that Redis forgot while it ran."""
        record = read_mirror(self._records.run(claim.job.id))
        if record is None:
            raise LeaseLost(f"Job {claim.job.id} was deleted.")
        self._records.put(record)  # unless someone else was faster
        return self._records.read(claim.job.id)


def _moved(job: Job, status: JobStatus, **fields: Any) -> Change:
    check_transition(job.id, job.status, status)
    changed = job.model_copy(update={"status": status, **fields})
    return Change(job=changed, events=(status_event(changed),))


def _given_back(job: Job, *, reason: str, lost: JobFailure | None) -> Change:
    if job.cancel_requested:
        change = _moved(job, JobStatus.CANCELLED, finished_at=now())
    elif lost is not None and job.attempt >= job.max_attempts:
        change = _moved(job, JobStatus.FAILED, error=lost, finished_at=now())
    else:
        attempt = job.attempt if lost is not None else job.attempt - 1
        change = _moved(job, JobStatus.QUEUED, attempt=attempt, worker=None)
    said = ("message", {"message": reason})
    return replace(change, drop_lease=True, events=(said, *change.events))


def _with_lines(job: Job, lines: list[Line]) -> Job:
    progress, metrics, best = job.progress, dict(job.metrics), job.best
    for line in lines:
        if line.type == "progress":
            progress = JobProgress.model_validate(line.data)
        elif line.type == "metrics":
            metrics.update(line.data["metrics"])
            best = BestEpoch.model_validate(line.data["best"])
    return job.model_copy(update={"progress": progress, "metrics": metrics, "best": best})


def _check_fence(record: Record, claim: Claim) -> None:
    if record.token != claim.token or record.job.status is not JobStatus.RUNNING:
        raise LeaseLost(f"Job {claim.job.id} is {record.job.status} under another attempt.")
