"""Jobs in Redis, and the one way to change a job. `job_store` and `leases` say what is done with it.

A change is a compare-and-set on the job's hash (WATCH, MULTI), so of two callers one wins; after every change the job
is mirrored to disk, and `restore()` reads it back. `redis_keys` has the keys.
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
from workers.jobs.mirror import mirrored_in, write_mirror
from workers.jobs.record import Change, Record, applied, now
from workers.jobs.redis_connection import connect, translated_errors
from workers.jobs.tally import EndedJobs, increments, read_tally
from workers.run_directory import RunDirectory


class JobRecords:
    """Reads and changes jobs. Every method raises StoreUnavailable while Redis is away."""

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
        """Seconds since Redis was started."""
        with translated_errors():
            return int(self._redis.info("server")["uptime_in_seconds"])

    def close(self) -> None:
        """Gives the connections back."""
        self._redis.close()

    def run(self, job_id: str) -> RunDirectory:
        """The directory of the job's run."""
        return RunDirectory(path=self._runs_dir / job_id)

    def read(self, job_id: str) -> Record:
        """Raises UnknownJob."""
        with translated_errors():
            return _read(self._redis, job_id)

    def all(self) -> list[Record]:
        """Every job, oldest first."""
        with translated_errors():
            return list(self._existing(self._redis.zrange(keys.JOBS, 0, -1)))

    def newest_first(self, *, after: str | None, chunk: int = 100) -> Iterator[Record]:
        """Jobs from the newest on, or from the one made before the job `after`. Raises UnknownJob for `after`."""
        start = 0
        if after is not None:
            with translated_errors():
                rank = self._redis.zrevrank(keys.JOBS, after)
            if rank is None:
                raise UnknownJob(f"There is no job {after!r} to list after.", hint="Leave `after` out to begin anew.")
            start = int(rank) + 1
        while True:
            with translated_errors():
                ids = self._redis.zrevrange(keys.JOBS, start, start + chunk - 1)
                records = list(self._existing(ids))
            if not ids:
                return
            yield from records
            start += chunk

    def put(self, record: Record) -> bool:
        """Writes a job that Redis does not know, with one event that says where it stands; False if it knows it."""
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

    def change(self, job_id: str, decide: Callable[[Record], Change], *, mirror: bool = True) -> Record:
        """One compare-and-set: reads the job, asks `decide` what to write, and writes it unless someone was faster.

        What `decide` raises goes through, and nothing is written. Raises UnknownJob.
        """
        key, lease = keys.job(job_id), keys.lease(job_id)
        with translated_errors(), self._redis.pipeline(transaction=True) as pipeline:
            while True:
                pipeline.watch(key, lease)
                old = _read(pipeline, job_id)
                wanted = decide(old)
                new = applied(old, wanted)
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

    # -- leases, queue --------------------------------------------------------------------------------------------

    def extend_lease(self, job_id: str, owner: str) -> None:
        """The running attempt lives for another lease."""
        with translated_errors():
            self._redis.set(keys.lease(job_id), owner, px=int(self.lease_s * 1000))

    def has_lease(self, job_id: str) -> bool:
        """Whether a worker has shown a sign of life within the lease."""
        with translated_errors():
            return bool(self._redis.exists(keys.lease(job_id)))

    def take_sweep_lock(self, owner: str, *, seconds: float) -> bool:
        """Whether nobody else took it within the last `seconds`."""
        with translated_errors():
            return bool(self._redis.set(keys.SWEEP, owner, nx=True, px=int(seconds * 1000)))

    def queue_depth(self) -> int:
        """Messages that wait for a worker."""
        with translated_errors():
            return int(self._redis.llen(keys.QUEUE))

    # -- figures --------------------------------------------------------------------------------------------------

    def kinds(self, *, most: int) -> list[tuple[str, str, JobStatus]]:
        """Id, type and status of the newest jobs: without reading the jobs, so many of them cost little."""
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
        """Jobs that ended, counted."""
        with translated_errors():
            return read_tally(self._redis.hgetall(keys.ENDED))

    # -- events ---------------------------------------------------------------------------------------------------

    def events(self, job_id: str, *, after: str | None, limit: int) -> list[JobEvent]:
        """Events in order, after the event id `after`. Raises UnknownJob."""
        with translated_errors():
            _read(self._redis, job_id)
            return read_events(self._redis, job_id, after=after, limit=limit)

    def new_events(self, job_id: str, *, after: str | None) -> AsyncIterator[list[JobEvent]]:
        """See follow_events."""
        return follow_events(self._url, job_id, after=after)

    # -- the copy on disk -----------------------------------------------------------------------------------------

    def mirror(self, record: Record) -> None:
        """See write_mirror."""
        write_mirror(self.run(record.job.id), record)

    def restore(self, *, only_if_emptied: bool = False) -> list[str]:
        """Reads back from disk the jobs that Redis does not know; returns their ids.

        only_if_emptied: cheap enough to be asked often; a Redis that lost its last second only is not noticed.
        """
        with translated_errors():
            if only_if_emptied and self._redis.exists(keys.RESTORED):
                return []
        missing = [record.job.id for record in mirrored_in(self._runs_dir) if self.put(record)]
        with translated_errors():
            self._redis.set(keys.RESTORED, now().isoformat())
        return missing

    def _existing(self, ids: list[str]) -> Iterator[Record]:
        for job_id in ids:
            try:
                yield _read(self._redis, job_id)
            except UnknownJob:  # deleted meanwhile
                continue


def _read(client: Any, job_id: str) -> Record:
    fields = client.hgetall(keys.job(job_id)) if keys.is_job_id(job_id) else None
    if not fields:
        raise UnknownJob(f"There is no job {job_id!r}.", hint="GET /v1/jobs lists them.")
    return Record(
        job=Job.model_validate_json(fields["doc"]),
        revision=int(fields["revision"]),
        token=int(fields["token"]),
        mirrored_bytes=int(fields["mirrored"]),
        queued_ms=int(fields["queued_ms"]),
    )


def _fields(record: Record) -> dict[str, str | int]:
    return {
        "doc": record.job.model_dump_json(),
        "type": record.job.type,
        "status": record.job.status.value,
        "revision": record.revision,
        "token": record.token,
        "mirrored": record.mirrored_bytes,
        "queued_ms": record.queued_ms,
    }
