"""Runs a job: claims it, starts a trainer on its run directory, relays its progress, publishes its result.

The trainer knows nothing of Redis, so it does not notice when Redis is away: the supervisor catches up later. The
trainer dies with the supervisor (it asks the kernel for that), and nothing it does counts once the lease is lost.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from models.errors import ModelsError
from models.store.registry import Registry
from models.store.storage import replace_file
from workers.errors import NO_SPACE, StoreUnavailable, UnknownJob
from workers.jobs.job import Job, JobFailure, JobStatus
from workers.jobs.leases import Claim, LeaseLost, Leases, Wishes
from workers.jobs.record import now
from workers.jobs.records import JobRecords
from workers.log_lines import lines_about
from workers.run_directory import EventTail, RunConfig, RunDirectory
from workers.supervision.exit_codes import EXIT_HANDED_BACK
from workers.supervision.publishing import publish

log = logging.getLogger(__name__)

PROJECT_DIR = Path(__file__).resolve().parents[2]
TICK_S = 0.1  # between two looks at the trainer process
RELAY_S = 0.5  # between two looks at its events and at what callers want
LOG_TAIL_BYTES = 2000

ResultT = TypeVar("ResultT")


class HandedBack(Exception):
    """The worker shuts down: the run stopped at a checkpoint."""


class Cancelled(Exception):
    """A caller cancelled the job, and the trainer is gone."""


class TrainerLost(Exception):
    """The trainer ended without a result and without saying why."""

    def __init__(self, failure: JobFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerOptions:
    """What a worker tells every trainer it starts."""

    device: str
    allow_download: bool
    cancel_grace_s: float
    font: Path | None = None
    hand_back_grace_s: float = 60.0


class Supervisor:
    """One worker's hands: runs one job at a time."""

    def __init__(
        self,
        records: JobRecords,
        registry: Registry,
        *,
        owner: str,
        options: TrainerOptions,
        send: Callable[[str], None],
        draining: threading.Event,
    ) -> None:
        self._records = records
        self._leases = Leases(records)
        self._registry = registry
        self._owner = owner
        self._options = options
        self._send = send
        self._draining = draining

    def run_job(self, job_id: str, request_id: str | None = None) -> None:
        """Runs a queued job to its end, or hands it back. A message of a job that is not queued is dropped.

        request_id: of the call that had it run, for the log; without it, of the call that made it.
        Raises StoreUnavailable if Redis is away before the job is claimed, or away for good after its run.
        """
        if self._draining.is_set():
            return  # still queued; the sweep of another worker, or of the next start, offers it again
        claim = self._leases.claim(job_id, self._owner)
        if claim is None:
            with lines_about(job_id=job_id, request_id=request_id):
                log.info("job %s is not queued: the message is a repeated one and is dropped", job_id)
            return
        with lines_about(job_id=job_id, request_id=request_id or claim.job.request_id):
            self._run_claimed(claim)

    def _run_claimed(self, claim: Claim) -> None:
        job_id = claim.job.id
        log.info("job %s: attempt %d", job_id, claim.job.attempt)
        try:
            job = self._attempt(claim)
        except (LeaseLost, UnknownJob) as error:
            log.warning("job %s: %s Nothing more is written for this attempt.", job_id, error)
            return
        log.info("job %s: %s", job_id, job.status)
        if job.status is JobStatus.QUEUED:
            self._send(job_id)

    def _attempt(self, claim: Claim) -> Job:
        """Runs the claimed job and tells Redis how that ended, as soon as Redis is there."""
        run = self._records.run(claim.job.id)
        try:
            tell = self._run(run, claim)
        except Cancelled:
            tell = partial(self._leases.cancel, claim)
        except HandedBack:
            run.note_handed_back(claim.token)  # in case Redis is away for good: the attempt was not lost
            reason = "The worker shuts down: the run goes on from its checkpoint when another takes it."
            tell = partial(self._leases.give_back, claim, reason=reason)
        except TrainerLost as lost:
            tell = partial(self._leases.give_back, claim, reason=lost.failure.message, lost=lost.failure)
        except (LeaseLost, UnknownJob):
            raise
        except Exception as error:  # the boundary of a run: whatever it was, no job may stay `running` without a worker
            tell = partial(self._leases.fail, claim, _failure_of(error, claim))
        return self._insist(tell)

    def _run(self, run: RunDirectory, claim: Claim) -> Callable[[], Job]:
        """Trains if need be and publishes; how to tell it. Raises what ends a run in another way."""
        self._prepare(run, claim)
        if run.read_result() is None:
            self._train(run, claim)
        result = run.read_result()
        if result is None:
            return partial(self._failed, run, claim)
        published = publish(run, run.read_config(), result, self._registry, now=now())
        return partial(self._leases.succeed, claim, published)

    def _prepare(self, run: RunDirectory, claim: Claim) -> None:
        run.path.mkdir(parents=True, exist_ok=True)
        run.write_fence(claim.token)
        for leftover in (run.failure, run.stop_request, run.hand_back_request):
            leftover.unlink(missing_ok=True)
        config = RunConfig(
            job_id=claim.job.id,
            job=claim.job.config,
            device=self._options.device,
            allow_download=self._options.allow_download,
            font=self._options.font,
        )
        replace_file(run.config, config.model_dump_json(indent=1).encode())

    def _train(self, run: RunDirectory, claim: Claim) -> None:
        """Returns when the trainer is gone and its events are relayed.

        Raises Cancelled, HandedBack, TrainerLost, LeaseLost.
        """
        relay = _Relay(self._leases, claim, EventTail(path=run.events, offset_bytes=claim.mirrored_bytes))
        trainer = _start_trainer(run, claim)
        try:
            exit_code = self._watch(trainer, run, relay)
        finally:
            _end_group(trainer, grace_s=self._options.cancel_grace_s)
        relay.look()
        if exit_code == EXIT_HANDED_BACK:
            raise HandedBack
        if run.read_result() is None and run.read_failure() is None:
            raise TrainerLost(_why_lost(exit_code, run, claim.job))

    def _watch(self, trainer: subprocess.Popen[bytes], run: RunDirectory, relay: _Relay) -> int:
        next_look = 0.0
        hand_back_deadline: float | None = None
        while True:
            exit_code = trainer.poll()
            if exit_code is not None:
                return exit_code
            if time.monotonic() >= next_look:
                wishes = relay.look()
                if wishes.cancel:
                    raise Cancelled
                if wishes.stop:
                    run.stop_request.touch()
                next_look = time.monotonic() + RELAY_S
            if self._draining.is_set():
                if hand_back_deadline is None:
                    run.hand_back_request.touch()
                    hand_back_deadline = time.monotonic() + self._options.hand_back_grace_s
                elif time.monotonic() > hand_back_deadline:
                    raise HandedBack
            # not `draining.wait`: once set it would return at once and spin
            time.sleep(TICK_S)

    def _failed(self, run: RunDirectory, claim: Claim) -> Job:
        failure = run.read_failure()
        assert failure is not None
        reason = JobFailure(code=failure.code, message=failure.message, hint=failure.hint)
        if failure.is_worth_retrying:
            return self._leases.give_back(claim, reason=failure.message, lost=reason)
        return self._leases.fail(claim, reason)

    def _insist(self, act: Callable[[], ResultT]) -> ResultT:
        """Does `act` as soon as Redis is there; a worker that shuts down meanwhile leaves it to the next attempt."""
        is_said = False
        while True:
            try:
                return act()
            except StoreUnavailable as error:
                if not is_said:
                    log.warning("%s The end of the run is told when it is back.", error)
                is_said = True
                if self._draining.wait(1.0):
                    raise


class _Relay:
    """Carries what the trainer says to Redis, and what callers want back. Redis may be away: then it is later."""

    def __init__(self, leases: Leases, claim: Claim, tail: EventTail) -> None:
        self._leases = leases
        self._claim = claim
        self._tail = tail
        self._is_away = False

    def look(self) -> Wishes:
        """Raises LeaseLost."""
        offset = self._tail.offset_bytes
        try:
            wishes = self._leases.renew(self._claim)
            if lines := self._tail.read():
                self._leases.record(self._claim, lines, mirrored_bytes=self._tail.offset_bytes)
        except StoreUnavailable as error:
            self._tail.offset_bytes = offset  # those lines are told again
            if not self._is_away:
                log.warning("%s The run goes on.", error)
            self._is_away = True
            return Wishes(cancel=False, stop=False)
        if self._is_away:
            log.info("Redis is back; job %s has caught up", self._claim.job.id)
        self._is_away = False
        return wishes


def _failure_of(error: Exception, claim: Claim) -> JobFailure:
    hint = getattr(error, "hint", None)
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return JobFailure(code="disk_full", message=str(error), hint="Free disk space, then retry the job.")
    if isinstance(error, ModelsError | OSError):
        return JobFailure(code="publishing_failed", message=str(error), hint=hint)
    log.error("job %s: the worker broke", claim.job.id, exc_info=error)
    message = f"The worker broke: {type(error).__name__}: {error}"
    return JobFailure(code="internal_error", message=message, hint="Its log has the reason; the checkpoints are kept.")


def _start_trainer(run: RunDirectory, claim: Claim) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "workers.training", str(run.path)]
    command += ["--token", str(claim.token), "--parent", str(os.getpid())]
    search_path = os.pathsep.join(filter(None, [str(PROJECT_DIR), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": search_path, "PYTHONUNBUFFERED": "1"}
    with run.log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 -- our own module on our own path
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
        )


def _end_group(trainer: subprocess.Popen[bytes], *, grace_s: float) -> None:
    """Ends the trainer and its data workers: asks, then kills. The device is free when it returns."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(trainer.pid, sign)
        try:
            trainer.wait(timeout=grace_s)
        except subprocess.TimeoutExpired:
            continue


def _why_lost(exit_code: int, run: RunDirectory, job: Job) -> JobFailure:
    attempt = f"in attempt {job.attempt} of {job.max_attempts}"
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        hint = "Most often the machine ran out of memory: try a smaller batch_size or image_size_px."
        return JobFailure(code="trainer_killed", message=f"The trainer was killed by {name} {attempt}.", hint=hint)
    with run.log.open("rb") as file:
        file.seek(max(0, run.log.stat().st_size - LOG_TAIL_BYTES))
        tail = file.read().decode(errors="replace").strip()
    message = f"The trainer ended with exit code {exit_code} {attempt}. Its last words: {tail}"
    return JobFailure(code="trainer_crashed", message=message, hint="GET /v1/jobs/{id}/log shows the whole log.")
