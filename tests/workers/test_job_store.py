"""The methods of callers on jobs, on a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.redis_server import RedisServer, free_port
from tests.waiting import PATIENCE_S
from tests.workers.jobs_builders import a_config, a_job, a_store
from workers.errors import IllegalTransition, StoreUnavailable, UnknownJob
from workers.jobs.job import JobFailure, JobStatus
from workers.jobs.leases import Leases
from workers.jobs.record import JobRecord
from workers.jobs.store import JobStore


@pytest.fixture
def store(redis_url: str, tmp_path: Path) -> Iterator[JobStore]:
    store = a_store(redis_url, tmp_path)
    yield store
    store.close()


@pytest.fixture
def leases(store: JobStore) -> Leases:
    return Leases(store.records)


def test_created_job_can_be_read_back(store: JobStore) -> None:
    job = store.create(a_job())
    assert store.get(job.id) == job
    assert store.run(job.id).job.exists()


def test_unknown_job_raises_an_error(store: JobStore) -> None:
    with pytest.raises(UnknownJob, match="job-nope"):
        store.get("job-nope")


def test_pages_follow_each_other_newest_first(store: JobStore) -> None:
    made = [store.create(a_job()).id for _ in range(5)]
    first = store.page(limit=2)
    second = store.page(limit=2, after=first.jobs[-1].id)
    last = store.page(limit=2, after=second.jobs[-1].id)
    assert [job.id for page in (first, second, last) for job in page.jobs] == made[::-1]
    assert [first.has_more, second.has_more, last.has_more] == [True, True, False]


def test_page_after_an_unknown_job_is_refused(store: JobStore) -> None:
    with pytest.raises(UnknownJob):
        store.page(after="job-nope")


def test_filters_choose_by_status_and_model(store: JobStore, leases: Leases) -> None:
    running = store.create(a_job(config=a_config(publish_as="one")))
    queued = store.create(a_job(config=a_config(publish_as="two")))
    leases.claim(running.id, "w")
    assert [job.id for job in store.page(status=JobStatus.RUNNING).jobs] == [running.id]
    assert [job.id for job in store.page(model="two").jobs] == [queued.id]


def test_position_counts_the_queued_jobs_ahead(store: JobStore, leases: Leases) -> None:
    jobs = [store.create(a_job()) for _ in range(3)]
    assert [store.position(job.id) for job in jobs] == [0, 1, 2]
    leases.claim(jobs[0].id, "w")
    assert [store.position(job.id) for job in jobs] == [None, 0, 1]


def test_cancel_of_a_queued_job_ends_it_at_once(store: JobStore, leases: Leases) -> None:
    job = store.create(a_job())
    assert store.request_cancel(job.id).status is JobStatus.CANCELLED
    assert leases.claim(job.id, "w") is None


def test_cancel_of_a_running_job_is_a_request(store: JobStore, leases: Leases) -> None:
    job = store.create(a_job())
    claim = leases.claim(job.id, "w")
    assert claim is not None
    assert store.request_cancel(job.id).status is JobStatus.RUNNING
    assert leases.renew(claim).cancel


def test_cancel_of_an_ended_job_is_refused(store: JobStore) -> None:
    job = store.create(a_job())
    store.request_cancel(job.id)
    with pytest.raises(IllegalTransition, match="cancelled"):
        store.request_cancel(job.id)


def test_stop_of_a_queued_job_is_refused(store: JobStore) -> None:
    job = store.create(a_job())
    with pytest.raises(IllegalTransition, match="only a running job"):
        store.request_stop(job.id)


def test_retry_queues_a_failed_job_with_no_attempts(store: JobStore, leases: Leases) -> None:
    job = store.create(a_job())
    claim = leases.claim(job.id, "w")
    assert claim is not None
    leases.fail(claim, JobFailure(code="disk_full", message="full"))
    again = store.retry(job.id)
    assert (again.status, again.attempt, again.error) == (JobStatus.QUEUED, 0, None)


def test_retry_of_a_running_job_is_refused(store: JobStore, leases: Leases) -> None:
    job = store.create(a_job())
    leases.claim(job.id, "w")
    with pytest.raises(IllegalTransition):
        store.retry(job.id)


def test_delete_removes_the_directory_of_an_ended_job(store: JobStore) -> None:
    job = store.create(a_job())
    with pytest.raises(IllegalTransition, match="only an ended"):
        store.delete(job.id)
    store.request_cancel(job.id)
    store.delete(job.id)
    assert not store.run(job.id).path.exists()
    with pytest.raises(UnknownJob):
        store.get(job.id)


def test_events_have_every_transition_and_can_be_replayed(store: JobStore, leases: Leases) -> None:
    job = store.create(a_job())
    leases.claim(job.id, "w")
    store.request_stop(job.id)
    events = store.events(job.id)
    assert [event.data.get("status") for event in events if event.type == "status"] == ["queued", "running"]
    assert store.events(job.id, after=events[0].id) == events[1:]


def test_follow_ends_with_the_event_that_ends_the_job(store: JobStore) -> None:
    job = store.create(a_job())

    async def watch() -> list[str]:
        seen = []
        async for event in store.follow(job.id):
            if event is not None:
                seen.append(event.data["status"])
                if len(seen) == 1:
                    await asyncio.to_thread(store.request_cancel, job.id)
        return seen

    assert asyncio.run(asyncio.wait_for(watch(), PATIENCE_S)) == ["queued", "cancelled"]


def test_follow_yields_none_during_silence(store: JobStore) -> None:
    job = store.create(a_job())

    async def watch() -> None:
        stream = store.follow(job.id, idle_s=0.1)
        async for event in stream:
            if event is None:
                break
        await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(asyncio.wait_for(watch(), PATIENCE_S))


def test_jobs_using_a_dataset_are_those_that_have_not_ended(store: JobStore) -> None:
    job = store.create(a_job())
    assert store.jobs_using_dataset("shapes") == [job.id]
    assert store.jobs_using_dataset("shapes", 2) == []
    store.request_cancel(job.id)
    assert store.jobs_using_dataset("shapes") == []


def test_job_that_cannot_be_stored_leaves_no_directory(tmp_path: Path) -> None:
    store = a_store(f"redis://127.0.0.1:{free_port()}/0", tmp_path)
    with pytest.raises(StoreUnavailable, match="unreachable"):
        store.create(a_job())
    assert list((tmp_path / "runs").iterdir()) == []
    store.close()


def test_single_job_that_redis_lost_is_restored(store: JobStore, redis_url: str) -> None:
    lost, kept = store.create(a_job()), store.create(a_job())
    assert store.restore() == []
    with redis.Redis.from_url(redis_url) as client:
        client.delete(f"fovea:job:{lost.id}")
    assert store.restore() == [lost.id]
    assert {job.id for job in store.page().jobs} == {lost.id, kept.id}


def test_job_that_redis_has_is_not_overwritten(store: JobStore, leases: Leases) -> None:
    job = store.create(a_job())
    leases.claim(job.id, "w")
    assert not store.records.add(JobRecord(job=job))
    assert store.get(job.id).status is JobStatus.RUNNING


def test_all_jobs_are_restored_from_disk(own_redis: RedisServer, tmp_path: Path) -> None:
    store = a_store(own_redis.url, tmp_path)
    assert store.restore() == []
    queued, cancelled = store.create(a_job()), store.create(a_job())
    store.request_cancel(cancelled.id)
    own_redis.stop()
    own_redis.lose_everything()
    own_redis.start()
    assert sorted(store.restore()) == sorted([queued.id, cancelled.id])
    assert store.get(queued.id).status is JobStatus.QUEUED
    assert store.get(cancelled.id).status is JobStatus.CANCELLED
    assert store.restore() == []
    store.close()
