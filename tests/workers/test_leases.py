"""Leases: one attempt at a time runs a job, and only the latest attempt may write. On a real Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.waiting import wait_until
from tests.workers.jobs_builders import a_job, a_store
from workers.jobs.job import JobFailure, JobResult, JobStatus
from workers.jobs.leases import Claim, LeaseLost, Leases, RequestedActions, _apply_lines
from workers.jobs.record import now
from workers.jobs.store import JobStore
from workers.run_directory import EventLine

LOST = JobFailure(code="trainer_killed", message="killed")
RESULT = JobResult(model="shapes", version=1, metrics={"val/top1": 0.5}, promoted=True, promotion="first")


@pytest.fixture
def store(redis_url: str, tmp_path: Path) -> Iterator[JobStore]:
    store = a_store(redis_url, tmp_path, lease_s=0.6)
    yield store
    store.close()


@pytest.fixture
def leases(store: JobStore) -> Leases:
    return Leases(store.records)


def claimed(store: JobStore, leases: Leases) -> Claim:
    claim = leases.claim(store.create(a_job()).id, "worker")
    assert claim is not None
    return claim


def test_one_of_many_claims_wins(store: JobStore, leases: Leases) -> None:
    job = store.create(a_job())
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda number: leases.claim(job.id, f"w{number}"), range(8)))
    winners = [claim for claim in claims if claim is not None]
    assert len(winners) == 1
    assert store.get(job.id).worker == winners[0].owner
    assert store.get(job.id).attempt == 1


def test_claim_of_a_deleted_job_is_none(leases: Leases) -> None:
    assert leases.claim("job-gone", "w") is None


def test_running_job_with_an_expired_lease_is_queued_again(store: JobStore, leases: Leases) -> None:
    claim = claimed(store, leases)
    taken = wait_until(leases.end_lost_attempts)
    assert [(job.id, job.status, job.attempt) for job in taken] == [(claim.job.id, JobStatus.QUEUED, 1)]


def test_renewed_lease_is_not_lost(store: JobStore, leases: Leases, redis_url: str) -> None:
    claim = claimed(store, leases)
    leases.renew(claim)
    assert leases.end_lost_attempts() == []
    with redis.Redis.from_url(redis_url) as client:
        assert 0 < client.pttl(f"fovea:job:{claim.job.id}:lease") <= 600


def test_no_job_is_lost_if_redis_has_just_started(redis_url: str, tmp_path: Path) -> None:
    store = a_store(redis_url, tmp_path, lease_s=10**6)
    leases = Leases(store.records)
    claim = claimed(store, leases)
    with redis.Redis.from_url(redis_url) as client:
        client.delete(f"fovea:job:{claim.job.id}:lease")
    assert leases.end_lost_attempts() == []
    assert store.get(claim.job.id).status is JobStatus.RUNNING
    store.close()


def test_lease_renewed_while_the_job_is_being_taken_keeps_the_job(
    store: JobStore, leases: Leases, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = claimed(store, leases)
    with redis.Redis.from_url(redis_url) as client:
        client.delete(f"fovea:job:{claim.job.id}:lease")  # it has expired
    looked: list[bool] = []
    has_lease = store.records.has_lease

    def slowly(job_id: str) -> bool:
        looked.append(has_lease(job_id))
        if len(looked) == 1:
            leases.renew(claim)  # the worker was only slow
        return looked[-1]

    monkeypatch.setattr(store.records, "uptime_s", lambda: 10**6)
    monkeypatch.setattr(store.records, "has_lease", slowly)
    assert leases.end_lost_attempts() == []
    assert looked == [False, True]
    assert leases.succeed(claim, RESULT).status is JobStatus.SUCCEEDED


def test_job_cancelled_while_it_is_being_claimed_is_not_run(
    store: JobStore, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = store.create(a_job())
    monkeypatch.setattr("workers.jobs.leases.now", once(lambda: store.request_cancel(job.id), now))
    assert leases.claim(job.id, "w") is None
    assert store.get(job.id).status is JobStatus.CANCELLED


def test_request_made_while_progress_is_being_written_is_kept(
    store: JobStore, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = claimed(store, leases)
    request_stop = once(lambda: store.request_stop(claim.job.id), _apply_lines)
    monkeypatch.setattr("workers.jobs.leases._apply_lines", request_stop)
    line = EventLine(at=datetime.now(UTC), type="progress", data={"epoch": 1, "epochs": 2, "fraction": 0.5})
    job = leases.record(claim, [line], mirrored_bytes=1)
    assert (job.stop_requested, job.progress.fraction) == (True, 0.5)
    assert leases.renew(claim) == RequestedActions(cancel=False, stop=True)


def test_progress_of_a_job_that_succeeded_early_is_complete(store: JobStore, leases: Leases) -> None:
    claim = claimed(store, leases)
    line = EventLine(at=datetime.now(UTC), type="progress", data={"epoch": 1, "epochs": 2, "fraction": 0.5, "eta_s": 9})
    leases.record(claim, [line], mirrored_bytes=1)
    progress = leases.succeed(claim, RESULT).progress
    assert (progress.fraction, progress.eta_s, progress.epoch, progress.epochs) == (1.0, 0.0, 1, 2)


def test_progress_of_a_job_that_failed_stays(store: JobStore, leases: Leases) -> None:
    claim = claimed(store, leases)
    line = EventLine(at=datetime.now(UTC), type="progress", data={"epoch": 1, "epochs": 2, "fraction": 0.5})
    leases.record(claim, [line], mirrored_bytes=1)
    assert leases.fail(claim, LOST).progress.fraction == 0.5


def once(act: Callable[[], object], then: Callable[..., Any]) -> Callable[..., Any]:
    """A stand-in for `then` that calls `act` before the first call: somebody else was quicker."""
    acts = iter([act])

    def stand_in(*args: Any) -> Any:
        for earlier in acts:
            earlier()
        return then(*args)

    return stand_in


def test_lease_lasts_its_time_after_the_claim_and_every_renewal_and_ends_with_the_attempt(
    store: JobStore, leases: Leases, redis_url: str
) -> None:
    claim = claimed(store, leases)
    lease = f"fovea:job:{claim.job.id}:lease"
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        assert (client.get(lease), 0 < client.pttl(lease) <= 600) == ("worker", True)
        client.delete(lease)
        leases.renew(claim)
        assert (client.get(lease), 0 < client.pttl(lease) <= 600) == ("worker", True)
        leases.requeue(claim, reason="shutting down")
        assert client.get(lease) is None
        again = leases.claim(claim.job.id, "w")
        assert again is not None
        leases.succeed(again, RESULT)
        assert client.get(lease) is None


def test_attempt_continues_the_event_stream_where_the_one_before_stopped(store: JobStore, leases: Leases) -> None:
    first = claimed(store, leases)
    assert (first.mirrored_bytes, first.job.started_at is not None) == (0, True)
    leases.record(first, [], mirrored_bytes=123)
    leases.requeue(first, reason="lost", lost=LOST)
    second = leases.claim(first.job.id, "w")
    assert second is not None
    assert (second.mirrored_bytes, second.token, second.job.attempt) == (123, first.token + 1, 2)
    assert second.job.started_at == first.job.started_at


def test_attempt_handed_back_by_another_token_counts_as_lost(store: JobStore, leases: Leases) -> None:
    claim = claimed(store, leases)
    store.run(claim.job.id).mark_handed_back(claim.token - 1)
    (taken,) = wait_until(leases.end_lost_attempts)
    assert (taken.status, taken.attempt) == (JobStatus.QUEUED, 1)
    messages = [event.data["message"] for event in store.events(taken.id) if event.type == "message"]
    assert messages == ["The worker worker was lost in attempt 1 of 3."]


def test_lost_attempt_cannot_write(store: JobStore, leases: Leases) -> None:
    old = claimed(store, leases)
    wait_until(leases.end_lost_attempts)
    new = leases.claim(old.job.id, "another")
    assert new is not None
    assert new.token > old.token
    for write in (
        lambda: leases.renew(old),
        lambda: leases.record(old, [], mirrored_bytes=1),
        lambda: leases.succeed(old, RESULT),
        lambda: leases.fail(old, LOST),
        lambda: leases.requeue(old, reason="late"),
    ):
        with pytest.raises(LeaseLost):
            write()
    assert store.get(old.job.id).worker == "another"


def test_attempt_handed_back_without_redis_does_not_count_as_lost(store: JobStore, leases: Leases) -> None:
    job = store.create(a_job(max_attempts=1))
    claim = leases.claim(job.id, "w")
    assert claim is not None
    store.run(job.id).mark_handed_back(claim.token)
    (taken,) = wait_until(leases.end_lost_attempts)
    assert (taken.status, taken.attempt) == (JobStatus.QUEUED, 0)


def test_last_lost_attempt_fails_the_job_with_the_reason(store: JobStore, leases: Leases) -> None:
    job = store.create(a_job(max_attempts=2))
    for _ in range(2):
        claim = leases.claim(job.id, "w")
        assert claim is not None
        leases.requeue(claim, reason="lost", lost=LOST)
    ended = store.get(job.id)
    assert (ended.status, ended.error) == (JobStatus.FAILED, LOST)


def test_attempt_handed_back_at_a_shutdown_does_not_count(store: JobStore, leases: Leases) -> None:
    claim = claimed(store, leases)
    assert leases.requeue(claim, reason="shutting down").attempt == 0


def test_cancelled_job_is_not_queued_again(store: JobStore, leases: Leases) -> None:
    claim = claimed(store, leases)
    store.request_cancel(claim.job.id)
    assert leases.requeue(claim, reason="shutting down").status is JobStatus.CANCELLED


def test_event_lines_update_the_job_and_its_events(store: JobStore, leases: Leases) -> None:
    claim = claimed(store, leases)
    at = datetime.now(UTC)
    best = {"metric": "val/top1", "value": 0.75, "epoch": 1, "loss": 0.5}
    lines = [
        EventLine(at=at, type="progress", data={"epoch": 1, "epochs": 2, "step": 4, "steps": 8, "fraction": 0.5}),
        EventLine(at=at, type="metrics", data={"epoch": 1, "step": 4, "metrics": {"val/top1": 0.75}, "best": best}),
    ]
    job = leases.record(claim, lines, mirrored_bytes=123)
    assert (job.progress.fraction, job.metrics, job.best and job.best.value) == (0.5, {"val/top1": 0.75}, 0.75)
    assert [event.type for event in store.events(job.id)][-2:] == ["progress", "metrics"]
    assert store.events(job.id)[-1].at == at


def test_running_job_that_redis_lost_is_restored(store: JobStore, leases: Leases, redis_url: str) -> None:
    claim = claimed(store, leases)
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    leases.renew(claim)
    assert store.get(claim.job.id).status is JobStatus.RUNNING
    assert leases.succeed(claim, RESULT).status is JobStatus.SUCCEEDED


def test_deleted_job_is_not_restored(store: JobStore, leases: Leases, redis_url: str) -> None:
    claim = claimed(store, leases)
    leases.fail(claim, LOST)
    store.delete(claim.job.id)
    with pytest.raises(LeaseLost):
        leases.renew(claim)


def test_queued_job_without_a_message_is_found(store: JobStore, leases: Leases, redis_url: str) -> None:
    job = store.create(a_job())
    assert leases.unsent_jobs(older_than_s=0) == [job.id]
    assert leases.unsent_jobs(older_than_s=60) == []
    with redis.Redis.from_url(redis_url) as client:
        client.lpush("fovea", "a message")
    assert leases.unsent_jobs(older_than_s=0) == []
