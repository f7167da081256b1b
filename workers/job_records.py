"""Jobs in Redis: every key and the one way to change a job. `job_store` and `leases` say what is done with it.

    fovea:jobs                   zset    job ids by creation time [ms]
    fovea:job:<id>               hash    doc (Job as JSON), type, status (of the doc), revision, token (fencing),
                                         mirrored (bytes of events.jsonl that are in the stream), queued_ms
    fovea:job:<id>:lease         string  owner of the running attempt; expires unless renewed
    fovea:job:<id>:events        stream  JobEvent
    fovea:jobs:ended             hash    how many ended, and after how long: `job_tally`
    fovea:sweep                  string  lock: one worker looks for lost jobs at a time
    fovea:restored               string  absent in a Redis that came back empty
    fovea                        list    Celery's queue

Redis never holds the only copy: after every change the job is mirrored to `runs/<id>/job.json`, and `restore()` reads
it back. A change is a compare-and-set on the job's hash (WATCH, MULTI), so of two callers one wins.
"""

from __future__ import annotations

import fcntl
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import redis
import redis.asyncio
from redis import exceptions as redis_errors
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from models.storage import replace_file
from workers.errors import StoreUnavailable, UnknownJob
from workers.job_tally import EndedJobs, increments, read_tally
from workers.jobs import Job, JobEvent, JobStatus, status_event
from workers.run_directory import RunDirectory

log = logging.getLogger(__name__)

QUEUE_NAME: Final = "fovea"
MAX_EVENTS: Final = 20_000  # a job; older ones are trimmed from Redis and stay in events.jsonl

_JOBS: Final = "fovea:jobs"
_ENDED: Final = "fovea:jobs:ended"
_SWEEP: Final = "fovea:sweep"
_RESTORED: Final = "fovea:restored"
_JOB_ID: Final = re.compile(r"job-[0-9a-f]{1,40}", re.ASCII)  # anything else could name another key


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A job and what only workers need to know of it."""

    job: Job
    revision: int = 1
    token: int = 0
    mirrored_bytes: int = 0
    queued_ms: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What one compare-and-set writes."""

    job: Job
    events: tuple[tuple[str, dict[str, Any]], ...] = ()
    token: int | None = None
    mirrored_bytes: int | None = None
    take_lease: str | None = None
    drop_lease: bool = False


class JobRecords:
    """Reads and changes jobs. Every method raises StoreUnavailable while Redis is away."""

    def __init__(self, redis_url: str, runs_dir: Path, *, lease_s: float) -> None:
        self._url = redis_url
        self._runs_dir = runs_dir
        self.lease_s = lease_s
        # Any: redis-py types every answer as a union with the asynchronous client's
        self._redis: Any = redis.Redis.from_url(
            redis_url,
            decode_responses=True,
            socket_connect_timeout=2.0,
            socket_timeout=5.0,
            # answers within a second when Redis is away: callers turn that into 503, workers try again later
            retry=Retry(ExponentialBackoff(cap=0.2, base=0.05), 2),
        )

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
            return list(self._existing(self._redis.zrange(_JOBS, 0, -1)))

    def newest_first(self, *, after: str | None, chunk: int = 100) -> Iterator[Record]:
        """Jobs from the newest on, or from the one made before the job `after`. Raises UnknownJob for `after`."""
        start = 0
        if after is not None:
            with translated_errors():
                rank = self._redis.zrevrank(_JOBS, after)
            if rank is None:
                raise UnknownJob(f"There is no job {after!r} to list after.", hint="Leave `after` out to begin anew.")
            start = int(rank) + 1
        while True:
            with translated_errors():
                ids = self._redis.zrevrange(_JOBS, start, start + chunk - 1)
                records = list(self._existing(ids))
            if not ids:
                return
            yield from records
            start += chunk

    def put(self, record: Record) -> bool:
        """Writes a job that Redis does not know, with one event that says where it stands; False if it knows it."""
        job = record.job
        with translated_errors(), self._redis.pipeline(transaction=True) as pipeline:
            pipeline.watch(_key(job.id))
            if pipeline.exists(_key(job.id)):
                return False
            pipeline.multi()
            pipeline.hset(_key(job.id), mapping=_fields(record))
            pipeline.zadd(_JOBS, {job.id: job.created_at.timestamp() * 1000})
            _add_event(pipeline, job.id, *status_event(job))
            try:
                pipeline.execute()
            except redis_errors.WatchError:
                return False
        return True

    def change(self, job_id: str, decide: Callable[[Record], Change], *, mirror: bool = True) -> Record:
        """One compare-and-set: reads the job, asks `decide` what to write, and writes it unless someone was faster.

        What `decide` raises goes through, and nothing is written. Raises UnknownJob.
        """
        key, lease = _key(job_id), _lease_key(job_id)
        with translated_errors(), self._redis.pipeline(transaction=True) as pipeline:
            while True:
                pipeline.watch(key, lease)
                old = _read(pipeline, job_id)
                wanted = decide(old)
                new = _applied(old, wanted)
                pipeline.multi()
                pipeline.hset(key, mapping=_fields(new))
                if new.job.status.is_final and not old.job.status.is_final:
                    for field, amount in increments(new.job).items():
                        pipeline.hincrby(_ENDED, field, amount)
                for event_type, data in wanted.events:
                    _add_event(pipeline, job_id, event_type, data)
                if wanted.take_lease is not None:
                    pipeline.set(lease, wanted.take_lease, px=int(self.lease_s * 1000))
                if wanted.drop_lease:
                    pipeline.delete(lease)
                try:
                    pipeline.execute()
                except redis_errors.WatchError:
                    continue
                break
        if mirror:
            self.mirror(new)
        return new

    def forget(self, job_id: str) -> None:
        """Removes every key of a job."""
        with translated_errors(), self._redis.pipeline(transaction=True) as pipeline:
            pipeline.zrem(_JOBS, job_id)
            pipeline.delete(_key(job_id), _lease_key(job_id), _events_key(job_id))
            pipeline.execute()

    # -- leases, queue --------------------------------------------------------------------------------------------

    def extend_lease(self, job_id: str, owner: str) -> None:
        """The running attempt lives for another lease."""
        with translated_errors():
            self._redis.set(_lease_key(job_id), owner, px=int(self.lease_s * 1000))

    def has_lease(self, job_id: str) -> bool:
        """Whether a worker has shown a sign of life within the lease."""
        with translated_errors():
            return bool(self._redis.exists(_lease_key(job_id)))

    def take_sweep_lock(self, owner: str, *, seconds: float) -> bool:
        """Whether nobody else took it within the last `seconds`."""
        with translated_errors():
            return bool(self._redis.set(_SWEEP, owner, nx=True, px=int(seconds * 1000)))

    def queue_depth(self) -> int:
        """Messages that wait for a worker."""
        with translated_errors():
            return int(self._redis.llen(QUEUE_NAME))

    # -- figures --------------------------------------------------------------------------------------------------

    def kinds(self, *, most: int) -> list[tuple[str, str, JobStatus]]:
        """Id, type and status of the newest jobs: without reading the jobs, so many of them cost little."""
        with translated_errors(), self._redis.pipeline(transaction=False) as pipeline:
            ids = self._redis.zrevrange(_JOBS, 0, most - 1)
            for job_id in ids:
                pipeline.hmget(_key(job_id), "type", "status")
            fields = pipeline.execute()
        return [
            (job_id, job_type, JobStatus(status))
            for job_id, (job_type, status) in zip(ids, fields, strict=True)
            if status is not None  # deleted meanwhile
        ]

    def ended(self) -> list[EndedJobs]:
        """Jobs that ended, counted."""
        with translated_errors():
            return read_tally(self._redis.hgetall(_ENDED))

    # -- events ---------------------------------------------------------------------------------------------------

    def events(self, job_id: str, *, after: str | None, limit: int) -> list[JobEvent]:
        """Events in order, after the event id `after`. Raises UnknownJob."""
        with translated_errors():
            _read(self._redis, job_id)
            found = self._redis.xrange(_events_key(job_id), min=f"({after}" if after else "-", count=limit)
        return [_event(entry_id, fields) for entry_id, fields in found]

    async def new_events(self, job_id: str, *, after: str | None) -> AsyncIterator[list[JobEvent]]:
        """Events after `after` as they come, in batches; an empty batch after every second of silence."""
        client: Any = redis.asyncio.Redis.from_url(self._url, decode_responses=True, socket_connect_timeout=2.0)
        position = after or "0"
        try:
            with translated_errors():
                while True:
                    answer = await client.xread({_events_key(job_id): position}, count=500, block=1000)
                    batch = [_event(entry_id, fields) for entry_id, fields in _entries(answer)]
                    if batch:
                        position = batch[-1].id
                    yield batch
        finally:
            await client.aclose()

    # -- the copy on disk -----------------------------------------------------------------------------------------

    def mirror(self, record: Record) -> None:
        """Writes `job.json`, unless a later state is there already. A full disk costs the mirror, not the job."""
        run = self.run(record.job.id)
        try:
            with _locked(run.path / "job.lock"):
                present = read_mirror(run)
                if present is None or present.revision < record.revision:
                    content = {
                        "revision": record.revision,
                        "token": record.token,
                        "job": record.job.model_dump(mode="json"),
                    }
                    replace_file(run.job, json.dumps(content, indent=1).encode())
        except FileNotFoundError:  # the job was deleted meanwhile
            return
        except OSError as error:
            log.warning("job %s was not mirrored to %s: %s", record.job.id, run.job, error)

    def restore(self, *, only_if_emptied: bool = False) -> list[str]:
        """Reads back from disk the jobs that Redis does not know; returns their ids.

        only_if_emptied: cheap enough to be asked often; a Redis that lost its last second only is not noticed.
        """
        with translated_errors():
            if only_if_emptied and self._redis.exists(_RESTORED):
                return []
        missing = [record.job.id for record in self._on_disk() if self.put(record)]
        with translated_errors():
            self._redis.set(_RESTORED, now().isoformat())
        return missing

    def _on_disk(self) -> list[Record]:
        if not self._runs_dir.is_dir():
            return []
        runs = (RunDirectory(path=path) for path in sorted(self._runs_dir.iterdir()) if path.is_dir())
        return [record for record in map(read_mirror, runs) if record is not None]

    def _existing(self, ids: list[str]) -> Iterator[Record]:
        for job_id in ids:
            try:
                yield _read(self._redis, job_id)
            except UnknownJob:  # deleted meanwhile
                continue


def read_mirror(run: RunDirectory) -> Record | None:
    """The job as it was last mirrored; None if it is not there or cannot be read."""
    try:
        content = json.loads(run.job.read_bytes())
        return Record(
            job=Job.model_validate(content["job"]),
            revision=int(content["revision"]),
            token=int(content["token"]),
            queued_ms=now_ms(),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read and is passed over: %s", run.job, error)
        return None


def now() -> datetime:
    """This moment, UTC."""
    return datetime.now(UTC)


def now_ms() -> int:
    """This moment, milliseconds since 1970."""
    return time.time_ns() // 1_000_000


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turns what redis-py raises into StoreUnavailable."""
    try:
        yield
    except (redis_errors.ConnectionError, redis_errors.TimeoutError) as error:
        raise StoreUnavailable(
            f"Redis is away: {error}", hint="Start Redis, or check FOVEA_REDIS_URL. Predictions go on without it."
        ) from error
    except redis_errors.RedisError as error:
        raise StoreUnavailable(
            f"Redis refused: {error}", hint="Look at Redis's log: its memory or its disk may be full."
        ) from error


def _applied(old: Record, change: Change) -> Record:
    is_newly_queued = change.job.status is JobStatus.QUEUED and old.job.status is not JobStatus.QUEUED
    return replace(
        old,
        job=change.job,
        revision=old.revision + 1,
        token=old.token if change.token is None else change.token,
        mirrored_bytes=old.mirrored_bytes if change.mirrored_bytes is None else change.mirrored_bytes,
        queued_ms=now_ms() if is_newly_queued else old.queued_ms,
    )


def _read(client: Any, job_id: str) -> Record:
    fields = client.hgetall(_key(job_id)) if _JOB_ID.fullmatch(job_id) else None
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


def _add_event(pipeline: Any, job_id: str, event_type: str, data: dict[str, Any]) -> None:
    content = dict(data)
    at = content.pop("at", None) or now().isoformat()
    entry = {"at": at, "type": event_type, "data": json.dumps(content)}
    pipeline.xadd(_events_key(job_id), entry, maxlen=MAX_EVENTS, approximate=True)


def _event(entry_id: str, fields: dict[str, str]) -> JobEvent:
    return JobEvent.model_validate({"id": entry_id, **fields, "data": json.loads(fields["data"])})


def _entries(answer: Any) -> list[tuple[str, dict[str, str]]]:
    """The entries of the one stream in an XREAD answer: RESP2 gives pairs, RESP3 a mapping with a list more."""
    if not answer:
        return []
    if isinstance(answer, dict):
        (chunks,) = answer.values()
        return [entry for chunk in chunks for entry in chunk]
    ((_, entries),) = answer
    return list(entries)


def _key(job_id: str) -> str:
    return f"fovea:job:{job_id}"


def _lease_key(job_id: str) -> str:
    return f"fovea:job:{job_id}:lease"


def _events_key(job_id: str) -> str:
    return f"fovea:job:{job_id}:events"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
