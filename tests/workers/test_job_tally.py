"""Jobs that ended are counted once, even if they are deleted or retried afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.redis_server import RedisServer
from tests.workers.jobs_builders import a_job, a_store
from workers.jobs.job import Job, JobFailure, JobStatus
from workers.jobs.leases import Leases
from workers.jobs.store import JobStore
from workers.jobs.tally import BOUNDS_S, EndedJobs, increments, read_tally


@pytest.fixture
def store(redis_url: str, tmp_path: Path) -> Iterator[JobStore]:
    store = a_store(redis_url, tmp_path)
    yield store
    store.close()


def ended_job(run_s: float | None) -> Job:
    job = a_job()
    finished_at = job.created_at + timedelta(seconds=5 + (run_s or 0))
    started_at = None if run_s is None else finished_at - timedelta(seconds=run_s)
    ended = {"status": JobStatus.SUCCEEDED, "started_at": started_at, "finished_at": finished_at}
    return job.model_copy(update=ended)


def tally_of(*jobs: Job) -> EndedJobs:
    fields: dict[str, int] = {}
    for job in jobs:
        for field, amount in increments(job).items():
            fields[field] = fields.get(field, 0) + amount
    (ended,) = read_tally({field: str(value) for field, value in fields.items()})
    return ended


@pytest.mark.parametrize(
    ("run_s", "place"), [(0.0, 0), (10.0, 0), (10.1, 1), (86_400.0, len(BOUNDS_S) - 1), (1e6, len(BOUNDS_S))]
)
def test_duration_counts_in_the_interval_that_contains_it(run_s: float, place: int) -> None:
    ended = tally_of(ended_job(run_s))
    assert ended.runs_by_duration == tuple(int(each == place) for each in range(len(BOUNDS_S) + 1))
    assert ended.run_s == pytest.approx(run_s)


def test_job_that_never_started_has_no_duration() -> None:
    ended = tally_of(ended_job(None), ended_job(3.0))
    assert (ended.count, sum(ended.runs_by_duration), ended.run_s) == (2, 1, 3.0)


def test_empty_hash_gives_no_counts() -> None:
    assert read_tally({}) == []


def counted(store: JobStore) -> dict[tuple[str, str], int]:
    return {(each.type, each.status.value): each.count for each in store.statistics().ended}


def test_deleted_job_stays_counted_and_a_retried_job_counts_again(store: JobStore) -> None:
    kept, deleted = store.create(a_job()), store.create(a_job())
    for job in (kept, deleted):
        store.request_cancel(job.id)
    store.delete(deleted.id)
    statistics = store.statistics()
    assert counted(store) == {("fine_tune", "cancelled"): 2}
    assert statistics.counts == {("fine_tune", JobStatus.CANCELLED): 1}
    store.retry(kept.id)
    assert counted(store) == {("fine_tune", "cancelled"): 2}
    claim = Leases(store.records).claim(kept.id, "w")
    assert claim is not None
    Leases(store.records).fail(claim, JobFailure(code="x", message="x"))
    assert counted(store) == {("fine_tune", "cancelled"): 2, ("fine_tune", "failed"): 1}


def test_statistics_have_the_running_jobs(store: JobStore) -> None:
    waiting, running = store.create(a_job()), store.create(a_job())
    Leases(store.records).claim(running.id, "w")
    statistics = store.statistics()
    assert [job.id for job in statistics.running] == [running.id]
    assert statistics.counts == {("fine_tune", JobStatus.QUEUED): 1, ("fine_tune", JobStatus.RUNNING): 1}
    assert waiting.id not in {job.id for job in statistics.running}


def test_restored_jobs_are_not_counted_again(own_redis: RedisServer, tmp_path: Path) -> None:
    store = a_store(own_redis.url, tmp_path)
    store.request_cancel(store.create(a_job()).id)
    own_redis.stop()
    own_redis.lose_everything()
    own_redis.start()
    store.restore()
    assert store.statistics().counts == {("fine_tune", JobStatus.CANCELLED): 1}
    assert counted(store) == {}
    store.close()
