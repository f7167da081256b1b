"""Jobs as callers see them: make, look, list, follow, cancel, stop, retry, delete."""

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
from workers.jobs.record import Change, Record, now, now_ms
from workers.jobs.records import JobRecords
from workers.jobs.tally import EndedJobs
from workers.run_directory import RunDirectory

MOST_COUNTED: Final = 10_000  # jobs: to look at them takes a tenth of a second


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A slice of the jobs, newest first."""

    jobs: list[Job]
    has_more: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class JobFigures:
    """What there is to count of the jobs."""

    queue_depth: int  # messages that wait for a worker
    counts: Mapping[tuple[str, JobStatus], int]  # of the newest MOST_COUNTED jobs, by type and status
    ended: list[EndedJobs]
    running: list[Job]


class JobStore:
    """The jobs. Every method raises StoreUnavailable while Redis is away."""

    def __init__(self, redis_url: str, runs_dir: Path, *, lease_s: float = 30.0) -> None:
        self.records = JobRecords(redis_url, runs_dir, lease_s=lease_s)

    def create(self, job: Job) -> Job:
        """Stores a new queued job and makes its directory. Sending it to a worker is the caller's next step."""
        path = self.run(job.id).path
        path.mkdir(parents=True)
        record = Record(job=job, queued_ms=now_ms())
        try:
            self.records.put(record)
        except StoreUnavailable:
            shutil.rmtree(path, ignore_errors=True)
            raise
        self.records.mirror(record)
        return job

    def get(self, job_id: str) -> Job:
        """Raises UnknownJob."""
        return self.records.read(job_id).job

    def page(
        self,
        *,
        status: JobStatus | None = None,
        job_type: str | None = None,
        model: str | None = None,
        limit: int = 20,
        after: str | None = None,
    ) -> Page:
        """Jobs newest first, after the job `after`; `model` is what they publish as. Raises UnknownJob for `after`."""
        found: list[Job] = []
        for record in self.records.newest_first(after=after):
            job = record.job
            is_wanted = (
                status in (None, job.status) and job_type in (None, job.type) and model in (None, job.config.publish_as)
            )
            if not is_wanted:
                continue
            if len(found) == limit:
                return Page(jobs=found, has_more=True)
            found.append(job)
        return Page(jobs=found, has_more=False)

    def position(self, job_id: str) -> int | None:
        """How many queued jobs are ahead of a queued one; None if it is not queued. Raises UnknownJob."""
        mine = self.records.read(job_id)
        if mine.job.status is not JobStatus.QUEUED:
            return None
        queued = (record for record in self.records.all() if record.job.status is JobStatus.QUEUED)
        return sum((other.queued_ms, other.job.id) < (mine.queued_ms, job_id) for other in queued)

    def request_cancel(self, job_id: str) -> Job:
        """Ends a queued job at once and asks a running one to end. Raises UnknownJob, IllegalTransition."""

        def decide(record: Record) -> Change:
            job = record.job
            check_transition(job_id, job.status, JobStatus.CANCELLED)
            if job.status is JobStatus.QUEUED:
                cancelled = job.model_copy(update={"status": JobStatus.CANCELLED, "finished_at": now()})
                return Change(job=cancelled, events=(status_event(cancelled),))
            said = ("message", {"message": "Cancel requested."})
            return Change(job=job.model_copy(update={"cancel_requested": True}), events=(said,))

        return self.records.change(job_id, decide).job

    def request_stop(self, job_id: str) -> Job:
        """Asks a running job to finish early with its best weights. Raises UnknownJob, IllegalTransition."""

        def decide(record: Record) -> Change:
            job = record.job
            if job.status is not JobStatus.RUNNING:
                hint = "Cancel it instead." if job.status is JobStatus.QUEUED else "It has ended."
                raise IllegalTransition(f"Job {job_id} is {job.status}; only a running job can be stopped.", hint=hint)
            if not isinstance(job.config, ResolvedFineTune):
                raise IllegalTransition(f"Job {job_id} trains nothing that could be stopped early.", hint="Cancel it.")
            said = ("message", {"message": "Stop requested: finishing with the best weights so far."})
            return Change(job=job.model_copy(update={"stop_requested": True}), events=(said,))

        return self.records.change(job_id, decide).job

    def retry(self, job_id: str) -> Job:
        """Queues a failed or cancelled job again; it goes on from its last checkpoint. Sending it is the next step.

        Raises UnknownJob, IllegalTransition.
        """

        def decide(record: Record) -> Change:
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
            return Change(job=queued, events=(status_event(queued),))

        return self.records.change(job_id, decide).job

    def delete(self, job_id: str) -> None:
        """Forgets an ended job and frees its disk. Raises UnknownJob, IllegalTransition."""
        job = self.get(job_id)
        if not job.status.is_final:
            raise IllegalTransition(
                f"Job {job_id} is {job.status}; only an ended job can be deleted.", hint="Cancel it first."
            )
        # the directory goes first: a crash in between leaves a job that can be deleted again
        shutil.rmtree(self.run(job_id).path, ignore_errors=True)
        self.records.forget(job_id)

    def events(self, job_id: str, *, after: str | None = None, limit: int = 1000) -> list[JobEvent]:
        """Events in order, after the event id `after`. Raises UnknownJob."""
        return self.records.events(job_id, after=after, limit=limit)

    async def follow(
        self, job_id: str, *, after: str | None = None, idle_s: float = 10.0
    ) -> AsyncIterator[JobEvent | None]:
        """Past events after `after`, then new ones as they come, up to the one that ends the job.

        Yields None after `idle_s` seconds of silence, so that a server can send a sign of life. Raises UnknownJob.
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
            # read after a silent second, so the event that ended the job has been sent by the next one
            has_ended = (await asyncio.to_thread(self.get, job_id)).status.is_final
            if not has_ended and time.monotonic() - silent_since >= idle_s:
                silent_since = time.monotonic()
                yield None

    def uses_dataset(self, name: str, version: int | None = None) -> list[str]:
        """Ids of the jobs that have not ended and need the data set (or that version of it)."""
        active = (record.job for record in self.records.all() if not record.job.status.is_final)
        return [
            job.id
            for job in active
            if job.config.dataset.name == name and version in (None, job.config.dataset.version)
        ]

    def uses_model(self, reference: str) -> list[str]:
        """Ids of the jobs that have not ended and go on from the model version `name/3`."""
        active = (record.job for record in self.records.all() if not record.job.status.is_final)
        return [job.id for job in active if job.config.base == reference]

    def restore(self) -> list[str]:
        """Reads back from disk the jobs that Redis does not know; returns their ids."""
        return self.records.restore()

    def queue_depth(self) -> int:
        """Messages that wait for a worker."""
        return self.records.queue_depth()

    def figures(self) -> JobFigures:
        """What there is to count, at the cost of a few calls, and of one a running job."""
        kinds = self.records.kinds(most=MOST_COUNTED)
        running = []
        for job_id, _, status in kinds:
            if status is JobStatus.RUNNING:
                with suppress(UnknownJob):  # deleted meanwhile
                    running.append(self.get(job_id))
        return JobFigures(
            queue_depth=self.queue_depth(),
            counts=Counter((job_type, status) for _, job_type, status in kinds),
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
        """Gives the connections back."""
        self.records.close()


def new_job_id() -> str:
    """An id that sorts by creation time."""
    return f"job-{now_ms():011x}{secrets.token_hex(4)}"
