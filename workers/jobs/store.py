"""Jobs for callers: create, get, list, follow, cancel, stop, retry, delete."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from workers.configs.fine_tune import ResolvedFineTune
from workers.errors import IllegalTransition, StoreUnavailable, UnknownJob
from workers.jobs.job import Job, JobEvent, JobStatus, check_transition, status_event
from workers.jobs.record import JobChange, JobRecord, now, now_ms
from workers.jobs.records import JobRecords
from workers.jobs.tally import EndedJobs
from workers.run_directory import RunDirectory

MAX_COUNTED_JOBS: Final = 10_000  # counting them takes 0.1 s


@dataclass(frozen=True, kw_only=True, slots=True)
class JobPage:
    """One page of a list of jobs, newest first."""

    jobs: list[Job]
    has_more: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class JobStatistics:
    """The numbers that the metrics report about jobs."""

    queue_depth: int  # messages that wait for a worker
    counts: Mapping[tuple[str, JobStatus], int]  # (type, status) -> number among the newest MAX_COUNTED_JOBS jobs
    ended: list[EndedJobs]
    running: list[Job]


class JobStore:
    """The jobs in Redis. Every method raises StoreUnavailable if Redis is unreachable."""

    def __init__(self, redis_url: str, runs_dir: Path, *, lease_s: float = 30.0) -> None:
        self.records = JobRecords(redis_url, runs_dir, lease_s=lease_s)

    def create(self, job: Job) -> Job:
        """Stores a new queued job and creates its directory. The caller then has to send it to a worker."""
        path = self.run(job.id).path
        path.mkdir(parents=True)
        record = JobRecord(job=job, queued_ms=now_ms())
        try:
            self.records.add(record)
        except StoreUnavailable:
            shutil.rmtree(path, ignore_errors=True)
            raise
        self.records.mirror(record)
        return job

    def get(self, job_id: str) -> Job:
        """Returns one job. Raises UnknownJob."""
        return self.records.read(job_id).job

    def page(
        self,
        *,
        status: JobStatus | None = None,
        job_type: str | None = None,
        model: str | None = None,
        limit: int = 20,
        after: str | None = None,
    ) -> JobPage:
        """Returns a page of jobs, newest first, starting after the job `after`.

        model: the name that the jobs publish as. Raises UnknownJob if there is no job `after`.
        """
        found: list[Job] = []
        for record in self.records.newest_first(after=after):
            job = record.job
            is_wanted = (
                status in (None, job.status) and job_type in (None, job.type) and model in (None, job.config.publish_as)
            )
            if not is_wanted:
                continue
            if len(found) == limit:
                return JobPage(jobs=found, has_more=True)
            found.append(job)
        return JobPage(jobs=found, has_more=False)

    def position(self, job_id: str) -> int | None:
        """Returns how many queued jobs are ahead of this one, or None if it is not queued. Raises UnknownJob."""
        mine = self.records.read(job_id)
        if mine.job.status is not JobStatus.QUEUED:
            return None
        queued = (record for record in self.records.all() if record.job.status is JobStatus.QUEUED)
        return sum((other.queued_ms, other.job.id) < (mine.queued_ms, job_id) for other in queued)

    def request_cancel(self, job_id: str) -> Job:
        """Cancels a queued job at once, or requests that a running job is cancelled.

        Raises UnknownJob, IllegalTransition.
        """

        def decide(record: JobRecord) -> JobChange:
            job = record.job
            check_transition(job_id, job.status, JobStatus.CANCELLED)
            if job.status is JobStatus.QUEUED:
                cancelled = job.model_copy(update={"status": JobStatus.CANCELLED, "finished_at": now()})
                return JobChange(job=cancelled, events=(status_event(cancelled),))
            message = ("message", {"message": "Cancel requested."})
            return JobChange(job=job.model_copy(update={"cancel_requested": True}), events=(message,))

        return self.records.change(job_id, decide).job

    def request_stop(self, job_id: str) -> Job:
        """Requests that a running job finishes early with its best weights. Raises UnknownJob, IllegalTransition."""

        def decide(record: JobRecord) -> JobChange:
            job = record.job
            if job.status is not JobStatus.RUNNING:
                hint = "Cancel it instead." if job.status is JobStatus.QUEUED else "It has ended."
                raise IllegalTransition(f"Job {job_id} is {job.status}; only a running job can be stopped.", hint=hint)
            if not isinstance(job.config, ResolvedFineTune):
                raise IllegalTransition(
                    f"Job {job_id} does not train, so it cannot be stopped early.", hint="Cancel it instead."
                )
            message = ("message", {"message": "Stop requested: the run finishes with the best weights so far."})
            return JobChange(job=job.model_copy(update={"stop_requested": True}), events=(message,))

        return self.records.change(job_id, decide).job

    def retry(self, job_id: str) -> Job:
        """Queues a failed or cancelled job again, to continue from its last checkpoint.

        The caller then has to send it to a worker. Raises UnknownJob, IllegalTransition.
        """

        def decide(record: JobRecord) -> JobChange:
            if record.job.status is JobStatus.RUNNING:
                raise IllegalTransition(
                    f"Job {job_id} is running; only an ended job can be retried.", hint="Cancel it first."
                )
            check_transition(job_id, record.job.status, JobStatus.QUEUED)
            fresh = {
                "error": None,
                "finished_at": None,
                "attempt": 0,
                "stop_requested": False,
                "cancel_requested": False,
            }
            queued = record.job.model_copy(update={"status": JobStatus.QUEUED, **fresh})
            return JobChange(job=queued, events=(status_event(queued),))

        return self.records.change(job_id, decide).job

    def delete(self, job_id: str) -> None:
        """Deletes an ended job and its directory. Raises UnknownJob, IllegalTransition."""
        job = self.get(job_id)
        if not job.status.is_final:
            raise IllegalTransition(
                f"Job {job_id} is {job.status}; only an ended job can be deleted.", hint="Cancel it first."
            )
        # The directory is deleted first: after a crash in between, the job is still known and can be deleted again.
        shutil.rmtree(self.run(job_id).path, ignore_errors=True)
        self.records.forget(job_id)

    def events(self, job_id: str, *, after: str | None = None, limit: int = 1000) -> list[JobEvent]:
        """The events of a job in order, after the event id `after`. Raises UnknownJob."""
        return self.records.events(job_id, after=after, limit=limit)

    async def follow(
        self, job_id: str, *, after: str | None = None, idle_s: float = 10.0
    ) -> AsyncIterator[JobEvent | None]:
        """Yields the events after the event id `after`, old and new ones, up to the event that ends the job.

        Yields None after `idle_s` seconds without an event, so that a server can keep its connection alive.
        Raises UnknownJob.
        """
        has_ended = (await asyncio.to_thread(self.get, job_id)).status.is_final
        silent_since = time.monotonic()
        async for batch in self.records.new_events(job_id, after=after):
            for event in batch:
                yield event
            if batch:
                silent_since = time.monotonic()
                continue
            if has_ended:
                return
            # An ended job has no further events; the next silent second proves that all of them were sent.
            has_ended = (await asyncio.to_thread(self.get, job_id)).status.is_final
            if not has_ended and time.monotonic() - silent_since >= idle_s:
                silent_since = time.monotonic()
                yield None

    def jobs_using_dataset(self, name: str, version: int | None = None) -> list[str]:
        """Ids of the jobs that have not ended and use the dataset, or this version of it."""
        active = (record.job for record in self.records.all() if not record.job.status.is_final)
        return [
            job.id
            for job in active
            if job.config.dataset.name == name and version in (None, job.config.dataset.version)
        ]

    def jobs_using_model(self, reference: str) -> list[str]:
        """Ids of the jobs that have not ended and start from the model version `reference`, such as `name/3`."""
        active = (record.job for record in self.records.all() if not record.job.status.is_final)
        return [job.id for job in active if job.config.base == reference]

    def restore(self) -> list[str]:
        """Adds the jobs that are on the disk but not in Redis. Returns their ids."""
        return self.records.restore()

    def queue_depth(self) -> int:
        """Number of messages that wait for a worker."""
        return self.records.queue_depth()

    def statistics(self) -> JobStatistics:
        """Reads the numbers for the metrics, with a few calls to Redis and one call per running job."""
        types_and_statuses = self.records.types_and_statuses(most=MAX_COUNTED_JOBS)
        running = []
        for job_id, _, status in types_and_statuses:
            if status is JobStatus.RUNNING:
                with suppress(UnknownJob):  # deleted meanwhile
                    running.append(self.get(job_id))
        return JobStatistics(
            queue_depth=self.queue_depth(),
            counts=Counter((job_type, status) for _, job_type, status in types_and_statuses),
            ended=self.records.ended(),
            running=running,
        )

    def ping(self) -> None:
        """Returns if Redis answers."""
        self.records.ping()

    def run(self, job_id: str) -> RunDirectory:
        """The directory of the job's run."""
        return self.records.run(job_id)

    def close(self) -> None:
        """Closes the connections."""
        self.records.close()


def new_job_id() -> str:
    """Returns a new id. Ids sort by creation time."""
    return f"job-{now_ms():011x}{secrets.token_hex(4)}"
