"""A supervisor with a scripted trainer: what becomes of the job, for every way in which a run can go."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from models.store.registry import Registry
from tests.workers.jobs_builders import a_job, a_store
from workers.jobs.job import Job, JobStatus
from workers.jobs.leases import Claim
from workers.jobs.record import JobChange, JobRecord
from workers.jobs.store import JobStore
from workers.run_directory import RunDirectory, RunFailure
from workers.supervision import supervisor as supervision
from workers.supervision.exit_codes import EXIT_FAILED, EXIT_HANDED_BACK
from workers.supervision.supervisor import Supervisor, TrainerOptions


@dataclass
class Trainer:
    """Does one step per look of the supervisor. `step` returns the exit code, or None to go on."""

    run: RunDirectory
    step: Callable[[Trainer, int], int | None]
    looks: int = 0
    exit_code: int | None = None

    def poll(self) -> int | None:
        self.looks += 1
        assert self.looks < 1000, "The supervisor waits in vain."
        self.exit_code = self.step(self, self.looks)
        return self.exit_code


@dataclass
class Stage:
    """A supervisor whose trainers are scripted."""

    store: JobStore
    registry: Registry
    sent: list[str] = field(default_factory=list)
    draining: threading.Event = field(default_factory=threading.Event)
    trainers: list[Trainer] = field(default_factory=list)
    ended_early: list[bool] = field(default_factory=list)  # for each trainer: ended by the supervisor

    def run(
        self,
        step: Callable[[Trainer, int], int | None],
        *,
        job: Job | None = None,
        hand_back_grace_s: float = 60.0,
        max_attempts: int = 3,
    ) -> Job:
        """Runs a job, or a new one, with this trainer. Returns what became of it."""
        job = job or self.store.create(a_job(max_attempts=max_attempts))
        options = TrainerOptions(
            device="cpu", allow_download=False, cancel_grace_s=0.0, hand_back_grace_s=hand_back_grace_s
        )
        supervisor = Supervisor(
            self.store.records,
            self.registry,
            owner="worker",
            options=options,
            send=self.sent.append,
            draining=self.draining,
        )

        def start(run: RunDirectory, _: Claim) -> Trainer:
            self.trainers.append(Trainer(run, step))
            return self.trainers[-1]

        def end(trainer: Trainer, **_: float) -> None:
            self.ended_early.append(trainer.exit_code is None)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(supervision, "POLL_INTERVAL_S", 0.0)
            patch.setattr(supervision, "RELAY_INTERVAL_S", 0.0)
            patch.setattr(supervision, "_start_trainer", start)
            patch.setattr(supervision, "_end_group", end)
            supervisor.run_job(job.id)
        return self.store.get(job.id)

    def messages(self, job: Job) -> list[str]:
        return [event.data["message"] for event in self.store.events(job.id) if event.type == "message"]


@pytest.fixture
def stage(redis_url: str, tmp_path: Path) -> Iterator[Stage]:
    store = a_store(redis_url, tmp_path)
    yield Stage(store=store, registry=Registry(tmp_path / "registry"))
    store.close()


def test_worker_that_shuts_down_lets_its_trainer_save_a_checkpoint(stage: Stage) -> None:
    looks_at_request: list[int] = []

    def step(trainer: Trainer, look: int) -> int | None:
        stage.draining.set()
        if trainer.run.hand_back_request.exists():
            looks_at_request.append(look)
        return EXIT_HANDED_BACK if len(looks_at_request) == 20 else None  # the checkpoint takes its time

    job = stage.run(step)
    assert stage.ended_early == [False]
    assert (job.status, job.attempt, job.worker) == (JobStatus.QUEUED, 0, None)
    assert stage.store.run(job.id).was_handed_back(1)
    assert stage.sent == [job.id]
    assert stage.messages(job) == [
        "Starting the trainer.",
        "The worker shuts down. Another worker continues the run from its checkpoint.",
    ]


def test_trainer_that_saves_no_checkpoint_in_time_is_ended_and_its_run_handed_back(stage: Stage) -> None:
    def step(*_: object) -> None:
        stage.draining.set()

    job = stage.run(step, hand_back_grace_s=0.01)
    assert stage.ended_early == [True]
    assert (job.status, job.attempt) == (JobStatus.QUEUED, 0)
    assert stage.sent == [job.id]


def test_trainer_of_a_worker_that_goes_on_is_not_asked_to_hand_back(stage: Stage) -> None:
    def step(trainer: Trainer, look: int) -> int | None:
        assert not trainer.run.hand_back_request.exists()
        return -signal.SIGKILL if look == 5 else None

    stage.run(step)


def test_worker_that_shuts_down_starts_no_run(stage: Stage) -> None:
    stage.draining.set()
    job = stage.run(lambda *_: pytest.fail("started"))
    assert (job.status, job.attempt, stage.sent) == (JobStatus.QUEUED, 0, [])


def test_requests_left_by_the_attempt_before_do_not_reach_the_next(stage: Stage) -> None:
    def leave(trainer: Trainer, _: int) -> int:
        trainer.run.stop_request.touch()
        trainer.run.hand_back_request.touch()
        failure = RunFailure(code="out_of_memory", message="full", is_worth_retrying=True)
        trainer.run.failure.write_text(failure.model_dump_json())
        return EXIT_FAILED

    def look(trainer: Trainer, _: int) -> int:
        run = trainer.run
        assert not any(path.exists() for path in (run.stop_request, run.hand_back_request, run.failure))
        assert run.read_fence() == 2
        return -signal.SIGKILL

    job = stage.run(leave)
    assert stage.run(look, job=job).attempt == 2
    assert len(stage.trainers) == 2


def test_cancelled_job_ends_its_trainer(stage: Stage) -> None:
    def step(trainer: Trainer, look: int) -> None:
        if look == 3:
            stage.store.request_cancel(trainer.run.path.name)

    job = stage.run(step)
    assert (job.status, stage.ended_early, stage.sent) == (JobStatus.CANCELLED, [True], [])
    assert stage.trainers[0].looks == 3


def test_start_of_the_trainer_is_an_event(stage: Stage) -> None:
    job = stage.run(lambda _, look: EXIT_HANDED_BACK if look == 2 else None)
    said = [event.data.get("message", event.data.get("status")) for event in stage.store.events(job.id, limit=10)]
    assert said[:3] == ["queued", "running", "Starting the trainer."]


def test_stop_reaches_the_trainer_and_waits_for_its_end(stage: Stage) -> None:
    asked: list[bool] = []

    def step(trainer: Trainer, look: int) -> int | None:
        if look == 3:
            stage.store.request_stop(trainer.run.path.name)
        asked.append(trainer.run.stop_request.exists())
        return -signal.SIGKILL if look == 8 else None

    stage.run(step)
    assert asked == [False] * 3 + [True] * 5


@pytest.mark.parametrize(
    ("exit_code", "code", "words"),
    [
        (-signal.SIGKILL, "trainer_killed", "The trainer was killed by SIGKILL in attempt 1 of 1."),
        (3, "trainer_crashed", "exit code 3 in attempt 1 of 1. The end of its log: xxx"),
        (0, "trainer_crashed", "exit code 0 in attempt 1 of 1."),
    ],
)
def test_trainer_that_ends_without_a_reason_is_a_lost_attempt(
    stage: Stage, exit_code: int, code: str, words: str
) -> None:
    def step(trainer: Trainer, _: int) -> int:
        trainer.run.log.write_text("x" * 3000 + "\nno such device\n")
        return exit_code

    job = stage.run(step, max_attempts=1)
    assert job.error is not None
    assert (job.status, job.error.code, stage.sent) == (JobStatus.FAILED, code, [])
    assert words in job.error.message
    assert len(job.error.message) < 2200
    assert exit_code < 0 or job.error.message.endswith("\nno such device")
    again = stage.run(step)
    assert (again.status, again.attempt, stage.sent) == (JobStatus.QUEUED, 1, [again.id])


@pytest.mark.parametrize("is_worth_retrying", [True, False])
def test_failure_of_the_trainer_is_that_of_the_job(stage: Stage, is_worth_retrying: bool) -> None:
    failure = RunFailure(code="out_of_memory", message="full", hint="less", is_worth_retrying=is_worth_retrying)

    def step(trainer: Trainer, _: int) -> int:
        trainer.run.failure.write_text(failure.model_dump_json())
        return EXIT_FAILED

    job = stage.run(step)
    if is_worth_retrying:
        assert (job.status, job.error, job.attempt, stage.sent) == (JobStatus.QUEUED, None, 1, [job.id])
    else:
        assert job.error is not None
        assert (job.status, job.error.code, job.error.hint) == (JobStatus.FAILED, "out_of_memory", "less")
        assert stage.sent == []


def test_attempt_that_lost_its_lease_ends_its_trainer_and_writes_nothing(stage: Stage) -> None:
    def step(trainer: Trainer, look: int) -> None:
        if look == 3:
            stage.store.records.change(trainer.run.path.name, taken)

    job = stage.run(step)
    assert stage.ended_early == [True]
    assert (job.status, job.worker, stage.sent) == (JobStatus.RUNNING, "another", [])


def taken(record: JobRecord) -> JobChange:
    """The change by which another worker takes a job."""
    return JobChange(job=record.job.model_copy(update={"worker": "another"}), token=record.token + 1)
