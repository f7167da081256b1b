"""A real worker, a real trainer and a real Redis: a job succeeds although each of them is interrupted in turn."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from celery import Celery

from models.store.registry import Registry
from tests.redis_server import RedisServer
from tests.training.runs import a_dataset
from tests.waiting import wait_until
from tests.workers.jobs_builders import GREY_28, a_config, a_job, a_store
from tests.workers.worker_process import WorkerProcess
from workers.jobs.job import Job, JobStatus
from workers.jobs.store import JobStore
from workers.queue import enqueue, make_celery
from workers.run_directory import MetricLine, RunDirectory

SHORT = {"epochs": 3}
ENDLESS = {"epochs": 10_000}  # runs until a stop request, so it cannot end before the test interrupts it


@dataclass(kw_only=True)
class Stage:
    """A home with a dataset, its job store, and a worker."""

    home: Path
    redis_url: str
    store: JobStore
    celery: Celery
    worker: WorkerProcess

    def submit(self, hyperparameters: dict[str, int], **changes: str) -> Job:
        config = a_config(dataset=a_dataset(self.home), hyperparameters=hyperparameters, **changes)
        job = self.store.create(a_job(config=config))
        enqueue(self.celery, job.id)
        return job

    def epochs(self, job: Job) -> int:
        return self.store.get(job.id).progress.epoch

    def wait_for(self, job: Job, status: JobStatus) -> Job:
        def reached() -> Job | None:
            now = self.store.get(job.id)
            assert now.status is status or not now.status.is_final, f"{now.status}: {now.error}"
            return now if now.status is status else None

        found = wait_until(reached)
        assert found is not None
        return found

    def finish(self, job: Job) -> Job:
        """Stops a running job early and waits until it has succeeded."""
        epoch = self.epochs(job)
        wait_until(lambda: self.store.get(job.id).status is JobStatus.RUNNING and self.epochs(job) > epoch)
        self.store.request_stop(job.id)
        return self.wait_for(job, JobStatus.SUCCEEDED)

    def finished_epochs(self, job: Job) -> list[int]:
        """The epochs that the attempts finished, in the order of time. One that was trained twice is there twice."""
        texts = self.store.run(job.id).metrics.read_bytes().splitlines()
        lines = [MetricLine.model_validate_json(text) for text in texts]
        return [line.epoch for line in lines if "val/loss" in line.metrics]

    def log(self, job: Job) -> str:
        return self.store.run(job.id).log.read_text()

    def trainer(self, job: Job) -> psutil.Process | None:
        """The trainer process of the job, or None."""
        path = str(self.store.run(job.id).path)
        for process in psutil.process_iter(["cmdline"]):
            if path in (process.info["cmdline"] or []) and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None


def make_stage(home: Path, redis_url: str) -> Stage:
    home.mkdir(exist_ok=True)
    return Stage(
        home=home,
        redis_url=redis_url,
        store=a_store(redis_url, home, lease_s=2.0),
        celery=make_celery(redis_url, visibility_timeout_s=86_400),
        worker=WorkerProcess(home=home, redis_url=redis_url),
    )


@pytest.fixture
def stage(redis_url: str, tmp_path: Path) -> Iterator[Stage]:
    stage = make_stage(tmp_path / "home", redis_url)
    yield stage
    stage.worker.end()
    stage.celery.close()
    stage.store.close()


@pytest.fixture
def fragile(own_redis: RedisServer, tmp_path: Path) -> Iterator[Stage]:
    """A stage with its own Redis, which the test may stop."""
    stage = make_stage(tmp_path / "home", own_redis.url)
    yield stage
    stage.worker.end()
    stage.celery.close()
    stage.store.close()


def test_job_becomes_a_model_in_production(stage: Stage) -> None:
    stage.worker.start()
    job = stage.wait_for(stage.submit(SHORT, promote="always"), JobStatus.SUCCEEDED)
    assert job.result is not None
    assert (job.result.model, job.result.version, job.result.promoted) == ("shapes", 1, True)
    version = Registry(stage.home / "registry").resolve("shapes@production")
    assert version.manifest.job_id == job.id
    assert version.manifest.metrics == job.result.metrics
    assert (job.attempt, job.progress.fraction, job.progress.epoch) == (1, 1.0, 3)
    assert RunDirectory(path=stage.home / "runs" / job.id).read_config().font == stage.worker.font
    types = [event.type for event in stage.store.events(job.id)]
    assert types.count("metrics") == 3
    statuses = [event.data["status"] for event in stage.store.events(job.id) if event.type == "status"]
    assert statuses == ["queued", "running", "succeeded"]


def test_killed_worker_ends_its_trainer_and_the_next_worker_continues(stage: Stage) -> None:
    stage.worker.start()
    job = stage.submit(ENDLESS)
    wait_until(lambda: stage.epochs(job) >= 2)
    stage.worker.kill()
    wait_until(lambda: stage.trainer(job) is None)
    stage.worker.start()
    ended = stage.finish(job)
    assert ended.attempt == 2
    assert stage.finished_epochs(job).count(1) == 1  # the second attempt did not start anew


def test_killed_trainer_is_restarted_from_its_checkpoint(stage: Stage) -> None:
    stage.worker.start()
    job = stage.submit(ENDLESS)
    wait_until(lambda: stage.epochs(job) >= 2)
    trainer = stage.trainer(job)
    assert trainer is not None
    trainer.kill()
    wait_until(lambda: stage.store.get(job.id).attempt == 2)
    ended = stage.finish(job)
    assert ended.attempt == 2
    messages = [event.data["message"] for event in stage.store.events(job.id) if event.type == "message"]
    assert any("killed by SIGKILL" in message for message in messages)


def test_terminated_worker_hands_its_run_back(stage: Stage) -> None:
    stage.worker.start()
    job = stage.submit(ENDLESS)
    wait_until(lambda: stage.epochs(job) >= 2)
    assert stage.worker.terminate() == 0
    assert stage.store.get(job.id).status is JobStatus.QUEUED
    handed_back = stage.finished_epochs(job)
    stage.worker.start()
    assert stage.finish(job).attempt == 1  # nothing was lost
    epochs = stage.finished_epochs(job)
    assert len(epochs) > len(handed_back)
    assert epochs == list(range(1, len(epochs) + 1))  # and nothing was trained twice


def test_cancel_of_a_running_job_frees_the_device_within_few_epochs(stage: Stage) -> None:
    stage.worker.start()
    job = stage.submit(ENDLESS)
    wait_until(lambda: stage.epochs(job) >= 1)
    stage.store.request_cancel(job.id)
    asked_in = stage.epochs(job)
    stage.wait_for(job, JobStatus.CANCELLED)
    assert stage.trainer(job) is None
    assert stage.epochs(job) < asked_in + 300
    after = stage.submit(SHORT, publish_as="after")
    stage.wait_for(after, JobStatus.SUCCEEDED)  # the worker is free for the next


def test_stop_of_a_running_job_publishes_the_best_weights_so_far(stage: Stage) -> None:
    stage.worker.start()
    job = stage.submit(ENDLESS)
    wait_until(lambda: stage.epochs(job) >= 1)
    stage.store.request_stop(job.id)
    ended = stage.wait_for(job, JobStatus.SUCCEEDED)
    assert ended.result is not None
    assert ended.result.version == 1
    assert ended.progress.epoch < ENDLESS["epochs"]


def test_repeated_message_does_not_run_a_job_twice(stage: Stage) -> None:
    stage.worker.start()
    job = stage.submit(SHORT)
    for _ in range(3):
        enqueue(stage.celery, job.id)
    stage.wait_for(job, JobStatus.SUCCEEDED)
    wait_until(lambda: stage.worker.log.read_text().count("is not queued: ignoring a repeated message") == 3)
    assert stage.store.get(job.id).attempt == 1
    assert stage.log(job).count("Training garment_classifier") == 1


def test_run_longer_than_the_visibility_timeout_runs_once(stage: Stage) -> None:
    stage.worker.visibility_timeout_s = 1
    other = WorkerProcess(home=stage.home, redis_url=stage.redis_url, visibility_timeout_s=1)
    stage.worker.start()
    try:
        job = stage.submit(ENDLESS)
        wait_until(lambda: stage.epochs(job) >= 1)
        other.start()  # a second worker restores unacknowledged messages and is offered the job
        wait_until(lambda: "is not queued: ignoring a repeated message" in other.log.read_text())
        stage.store.request_stop(job.id)
        assert stage.wait_for(job, JobStatus.SUCCEEDED).attempt == 1
        assert stage.log(job).count("Training garment_classifier") == 1
    finally:
        other.end()


def test_run_continues_while_redis_is_down(fragile: Stage, own_redis: RedisServer) -> None:
    fragile.worker.start()
    job = fragile.submit(ENDLESS)
    wait_until(lambda: fragile.epochs(job) >= 2)
    own_redis.stop()
    run = fragile.store.run(job.id)
    seen = len(run.read_metrics())
    wait_until(lambda: len(run.read_metrics()) > seen + 5)  # the trainer continues
    own_redis.start()
    assert fragile.finish(job).attempt == 1
    next_job = fragile.submit(SHORT, publish_as="next")
    fragile.wait_for(next_job, JobStatus.SUCCEEDED)  # the worker still listens


def test_jobs_are_restored_after_redis_lost_its_data(fragile: Stage, own_redis: RedisServer) -> None:
    fragile.worker.start()
    running, waiting = fragile.submit(ENDLESS), fragile.submit(SHORT, publish_as="waiting")
    wait_until(lambda: fragile.epochs(running) >= 2)
    own_redis.stop()
    own_redis.lose_everything()
    own_redis.start()
    wait_until(lambda: is_known(fragile, running) and is_known(fragile, waiting))
    assert fragile.finish(running).attempt == 1
    fragile.wait_for(waiting, JobStatus.SUCCEEDED)


def test_worker_waits_for_redis_at_start(fragile: Stage, own_redis: RedisServer) -> None:
    own_redis.stop()
    fragile.worker.start()
    wait_until(lambda: "Cannot connect" in fragile.worker.log.read_text())
    own_redis.start()
    fragile.wait_for(fragile.submit(SHORT), JobStatus.SUCCEEDED)


def test_failed_job_has_the_reason(stage: Stage) -> None:
    stage.worker.start()
    config = a_config(
        dataset=a_dataset(stage.home),
        architecture="resnet18",
        base="resnet18.IMAGENET1K_V1",
        strategy="fine_tune",
        preset=GREY_28.model_copy(update={"resize_px": 32, "crop_px": 32}),
        hyperparameters={"image_size_px": 32},
    )
    job = stage.store.create(a_job(config=config))
    enqueue(stage.celery, job.id)
    failed = wait_until(lambda: stage.store.get(job.id) if stage.store.get(job.id).status.is_final else None)
    assert failed is not None
    assert failed.error is not None
    assert (failed.status, failed.error.code) == (JobStatus.FAILED, "weights_unavailable")
    assert "resnet18-" in (failed.error.hint or "")


def test_idle_worker_is_small_and_has_no_torch(stage: Stage) -> None:
    worker = stage.worker.start()
    wait_until(lambda: "is ready" in worker.log.read_text())
    assert worker.process is not None
    process = psutil.Process(worker.process.pid)
    assert process.memory_info().rss < 150e6
    loaded = {os.path.basename(mapped.path) for mapped in process.memory_maps()}  # noqa: PTH119 -- strings of /proc
    assert not any(name.startswith("libtorch") for name in loaded)


def is_known(stage: Stage, job: Job) -> bool:
    return job.id in {known.id for known in stage.store.page(limit=100).jobs}
