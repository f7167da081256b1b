"""Reads and changes jobs in Redis. `store` (for callers) and `leases` (for workers) build on this module.

A change is a compare-and-set on the hash of the job (WATCH, MULTI): if two callers change a job at once, one of them
reads the job again and retries. After every change the job is mirrored to disk; `restore()` reads the mirror back.
`redis_keys` lists the keys.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from redis.exceptions import WatchError

from workers.errors import UnknownJob
from workers.jobs import redis_keys as keys
from workers.jobs.events import add_event, follow_events, read_events
from workers.jobs.job import Job, JobEvent, JobStatus, status_event
from workers.jobs.mirror import read_mirrors, write_mirror
from workers.jobs.record import JobChange, JobRecord, apply_change, now
from workers.jobs.redis_connection import connect, translated_errors
from workers.jobs.tally import EndedJobs, increments, read_tally
from workers.run_directory import RunDirectory


class JobRecords:
    """Reads and changes jobs. Every method raises StoreUnavailable if Redis is unreachable."""

    def __init__(self, redis_url: str, runs_dir: Path, *, lease_s: float) -> None:
        self._url = redis_url
        self._runs_dir = runs_dir
        self.lease_s = lease_s
        self._redis = connect(redis_url)

    def ping(self) -> None:
        """Returns if Redis answers."""
        with translated_errors():
            self._redis.ping()

    def uptime_s(self) -> int:
        """Seconds since the start of Redis."""
        with translated_errors():
            return int(self._redis.info("server")["uptime_in_seconds"])

    def close(self) -> None:
        """Closes the connections."""
        self._redis.close()

    def run(self, job_id: str) -> RunDirectory:
        """The directory of the job's run."""
        return RunDirectory(path=self._runs_dir / job_id)

    def read(self, job_id: str) -> JobRecord:
        """Reads one job. Raises UnknownJob."""
        with translated_errors():
            return _read(self._redis, job_id)

    def all(self) -> list[JobRecord]:
        """Every job, oldest first."""
        with translated_errors():
            return list(self._existing(self._redis.zrange(keys.JOBS, 0, -1)))

    def newest_first(self, *, after: str | None, chunk: int = 100) -> Iterator[JobRecord]:
        """Yields jobs from the newest to the oldest, starting after the job `after` if it is given.

        chunk: number of jobs per call to Redis. Raises UnknownJob if there is no job `after`.
        """
        start = 0
        if after is not None:
            with translated_errors():
                rank = self._redis.zrevrank(keys.JOBS, after)
            if rank is None:
                raise UnknownJob(
                    f"There is no job {after!r} to list after.", hint="Leave `after` out to start with the newest job."
                )
            start = int(rank) + 1
        while True:
            with translated_errors():
                ids = self._redis.zrevrange(keys.JOBS, start, start + chunk - 1)
                records = list(self._existing(ids))
            if not ids:
                return
            yield from records
            start += chunk

    def add(self, record: JobRecord) -> bool:
        """Adds a job and an event with its status. Returns False, and changes nothing, if Redis has the job."""
        job = record.job
        with translated_errors(), self._redis.pipeline(transaction=True) as pipeline:
            pipeline.watch(keys.job(job.id))
            if pipeline.exists(keys.job(job.id)):
                return False
            pipeline.multi()
            pipeline.hset(keys.job(job.id), mapping=_fields(record))
            pipeline.zadd(keys.JOBS, {job.id: job.created_at.timestamp() * 1000})
            add_event(pipeline, job.id, *status_event(job))
            try:
                pipeline.execute()
            except WatchError:
                return False
        return True

    def change(self, job_id: str, decide: Callable[[JobRecord], JobChange], *, mirror: bool = True) -> JobRecord:
        """Changes a job by compare-and-set: reads it, calls `decide` for the change, and writes the change.

        If somebody else has changed the job meanwhile, it starts again. If `decide` raises, nothing is written.
        mirror: also write the job to the disk. Raises UnknownJob, and all errors of `decide`.
        """
        key, lease = keys.job(job_id), keys.lease(job_id)
        with translated_errors(), self._redis.pipeline(transaction=True) as pipeline:
            while True:
                pipeline.watch(key, lease)
                old = _read(pipeline, job_id)
                wanted = decide(old)
                new = apply_change(old, wanted)
                pipeline.multi()
                pipeline.hset(key, mapping=_fields(new))
                if new.job.status.is_final and not old.job.status.is_final:
                    for field, amount in increments(new.job).items():
                        pipeline.hincrby(keys.ENDED, field, amount)
                for event_type, data in wanted.events:
                    add_event(pipeline, job_id, event_type, data)
                if wanted.take_lease is not None:
                    pipeline.set(lease, wanted.take_lease, px=int(self.lease_s * 1000))
                if wanted.drop_lease:
                    pipeline.delete(lease)
                try:
                    pipeline.execute()
                except WatchError:
                    continue
                break
        if mirror:
            self.mirror(new)
        return new

    def forget(self, job_id: str) -> None:
        """Removes every key of a job."""
        with translated_errors(), self._redis.pipeline(transaction=True) as pipeline:
            pipeline.zrem(keys.JOBS, job_id)
            pipeline.delete(keys.job(job_id), keys.lease(job_id), keys.events(job_id))
            pipeline.execute()

    # -- leases and queue -----------------------------------------------------------------------------------------

    def extend_lease(self, job_id: str, owner: str) -> None:
        """Extends the lease of the running attempt to its full length again."""
        with translated_errors():
            self._redis.set(keys.lease(job_id), owner, px=int(self.lease_s * 1000))

    def has_lease(self, job_id: str) -> bool:
        """Returns True if a worker has renewed the lease in time."""
        with translated_errors():
            return bool(self._redis.exists(keys.lease(job_id)))

    def take_sweep_lock(self, owner: str, *, seconds: float) -> bool:
        """Takes the lock of the sweep for `seconds`. Returns False if another worker holds it."""
        with translated_errors():
            return bool(self._redis.set(keys.SWEEP, owner, nx=True, px=int(seconds * 1000)))

    def queue_depth(self) -> int:
        """Number of messages that wait for a worker."""
        with translated_errors():
            return int(self._redis.llen(keys.QUEUE))

    # -- statistics -----------------------------------------------------------------------------------------------

    def types_and_statuses(self, *, most: int) -> list[tuple[str, str, JobStatus]]:
        """Id, type and status of the newest `most` jobs. It is cheap, because it does not read the whole jobs."""
        with translated_errors(), self._redis.pipeline(transaction=False) as pipeline:
            ids = self._redis.zrevrange(keys.JOBS, 0, most - 1)
            for job_id in ids:
                pipeline.hmget(keys.job(job_id), "type", "status")
            fields = pipeline.execute()
        return [
            (job_id, job_type, JobStatus(status))
            for job_id, (job_type, status) in zip(ids, fields, strict=True)
            if status is not None  # deleted meanwhile
        ]

    def ended(self) -> list[EndedJobs]:
        """The counts of jobs that ended."""
        with translated_errors():
            return read_tally(self._redis.hgetall(keys.ENDED))

    # -- events ---------------------------------------------------------------------------------------------------

    def events(self, job_id: str, *, after: str | None, limit: int) -> list[JobEvent]:
        """The events of a job in order, after the event id `after`. Raises UnknownJob."""
        with translated_errors():
            _read(self._redis, job_id)
            return read_events(self._redis, job_id, after=after, limit=limit)

    def new_events(self, job_id: str, *, after: str | None) -> AsyncIterator[list[JobEvent]]:
        """Yields new events in batches. See follow_events."""
        return follow_events(self._url, job_id, after=after)

    # -- mirror on disk -------------------------------------------------------------------------------------------

    def mirror(self, record: JobRecord) -> None:
        """Writes the job to the disk. See write_mirror."""
        write_mirror(self.run(record.job.id), record)

    def restore(self, *, only_if_emptied: bool = False) -> list[str]:
        """Adds the jobs that are on the disk but not in Redis. Returns their ids.

        only_if_emptied: do nothing unless Redis has lost all its data. This check is cheap enough for every sweep. It
        does not notice if Redis lost only its last second.
        """
        with translated_errors():
            if only_if_emptied and self._redis.exists(keys.RESTORED):
                return []
        missing = [record.job.id for record in read_mirrors(self._runs_dir) if self.add(record)]
        with translated_errors():
            self._redis.set(keys.RESTORED, now().isoformat())
        return missing

    def _existing(self, ids: list[str]) -> Iterator[JobRecord]:
        for job_id in ids:
            try:
                yield _read(self._redis, job_id)
            except UnknownJob:  # deleted meanwhile
                continue


def _read(client: Any, job_id: str) -> JobRecord:
    fields = client.hgetall(keys.job(job_id)) if keys.is_job_id(job_id) else None
    if not fields:
        raise UnknownJob(f"There is no job {job_id!r}.", hint="GET /v1/jobs lists all jobs.")
    return JobRecord(
        job=Job.model_validate_json(fields["doc"]),
        revision=int(fields["revision"]),
        token=int(fields["token"]),
        mirrored_bytes=int(fields["mirrored"]),
        queued_ms=int(fields["queued_ms"]),
    )


def _fields(record: JobRecord) -> dict[str, str | int]:
    return {
        "doc": record.job.model_dump_json(),
        "type": record.job.type,
        "status": record.job.status.value,
        "revision": record.revision,
        "token": record.token,
        "mirrored": record.mirrored_bytes,
        "queued_ms": record.queued_ms,
    }
