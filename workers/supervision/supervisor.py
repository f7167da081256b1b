"""Runs a job: claims it, starts a trainer on its run directory, relays its progress, publishes its result.

The trainer does not use Redis, so it continues if Redis is unreachable; the supervisor relays its progress later. The
kernel kills the trainer if the supervisor dies. After the lease is lost, nothing that the trainer writes counts.
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
from workers.jobs.leases import Claim, LeaseLost, Leases, RequestedActions
from workers.jobs.record import now
from workers.jobs.records import JobRecords
from workers.log_lines import log_fields
from workers.run_directory import EventLine, EventTail, RunConfig, RunDirectory
from workers.supervision.child_process import code_environment
from workers.supervision.exit_codes import EXIT_HANDED_BACK
from workers.supervision.publishing import publish

log = logging.getLogger(__name__)

POLL_INTERVAL_S = 0.1  # between two checks of the trainer process
RELAY_INTERVAL_S = 0.5  # between two reads of its events and of the requests of callers
LOG_TAIL_BYTES = 2000  # how much of the log a failure message quotes

ResultT = TypeVar("ResultT")


class RunHandedBack(Exception):
    """The worker shuts down, and the run has stopped at a checkpoint."""


class RunCancelled(Exception):
    """A caller has cancelled the job, and the trainer has ended."""


class TrainerLost(Exception):
    """The trainer ended without a result and without a reason."""

    def __init__(self, failure: JobFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerOptions:
    """Options for all trainers of a worker."""

    device: str
    allow_download: bool
    cancel_grace_s: float  # between SIGTERM and SIGKILL
    font: Path | None = None
    hand_back_grace_s: float = 60.0  # for the last checkpoint when the worker shuts down


class Supervisor:
    """Runs the jobs of one worker, one at a time."""

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
        """Runs a queued job to its end, or hands it back. Does nothing if the job is not queued.

        request_id: of the request that queued the job, for the log; None means that of the request that created it.
        Raises StoreUnavailable if Redis is unreachable before the job is claimed, or when the worker shuts down.
        """
        if self._draining.is_set():
            return  # the job stays queued; the next sweep of a worker sends it again
        claim = self._leases.claim(job_id, self._owner)
        if claim is None:
            with log_fields(job_id=job_id, request_id=request_id):
                log.info("job %s is not queued: ignoring a repeated message", job_id)
            return
        with log_fields(job_id=job_id, request_id=request_id or claim.job.request_id):
            self._run_claimed(claim)

    def _run_claimed(self, claim: Claim) -> None:
        job_id = claim.job.id
        log.info("job %s: attempt %d", job_id, claim.job.attempt)
        try:
            job = self._attempt(claim)
        except (LeaseLost, UnknownJob) as error:
            log.warning("job %s: %s This attempt writes nothing more.", job_id, error)
            return
        log.info("job %s: %s", job_id, job.status)
        if job.status is JobStatus.QUEUED:
            self._send(job_id)

    def _attempt(self, claim: Claim) -> Job:
        """Runs the claimed job, and writes to Redis how the attempt ended, as soon as Redis is reachable."""
        run = self._records.run(claim.job.id)
        try:
            report_end = self._run(run, claim)
        except RunCancelled:
            report_end = partial(self._leases.cancel, claim)
        except RunHandedBack:
            run.mark_handed_back(claim.token)  # if Redis stays unreachable, the sweep sees that no attempt was lost
            reason = "The worker shuts down. Another worker continues the run from its checkpoint."
            report_end = partial(self._leases.requeue, claim, reason=reason)
        except TrainerLost as lost:
            report_end = partial(self._leases.requeue, claim, reason=lost.failure.message, lost=lost.failure)
        except (LeaseLost, UnknownJob):
            raise
        except Exception as error:  # the boundary of a run: no job may stay `running` without a worker
            report_end = partial(self._leases.fail, claim, _failure_of(error, claim))
        return self._retry_until_redis_answers(report_end)

    def _run(self, run: RunDirectory, claim: Claim) -> Callable[[], Job]:
        """Trains unless there is a result, and publishes it. Returns the function that writes this end to Redis.

        Raises RunCancelled, RunHandedBack, TrainerLost, LeaseLost.
        """
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
        """Runs a trainer. Returns after it has ended and all its events were relayed.

        Raises RunCancelled, RunHandedBack, TrainerLost, LeaseLost.
        """
        relay = _Relay(self._leases, claim, EventTail(path=run.events, offset_bytes=claim.mirrored_bytes))
        relay.say("Starting the trainer.")
        trainer = _start_trainer(run, claim)
        try:
            exit_code = self._watch(trainer, run, relay)
        finally:
            _end_group(trainer, grace_s=self._options.cancel_grace_s)
        relay.update()
        if exit_code == EXIT_HANDED_BACK:
            raise RunHandedBack
        if run.read_result() is None and run.read_failure() is None:
            raise TrainerLost(_describe_loss(exit_code, run, claim.job))

    def _watch(self, trainer: subprocess.Popen[bytes], run: RunDirectory, relay: _Relay) -> int:
        next_relay = 0.0
        hand_back_deadline: float | None = None
        while True:
            exit_code = trainer.poll()
            if exit_code is not None:
                return exit_code
            if time.monotonic() >= next_relay:
                requested = relay.update()
                if requested.cancel:
                    raise RunCancelled
                if requested.stop:
                    run.stop_request.touch()
                next_relay = time.monotonic() + RELAY_INTERVAL_S
            if self._draining.is_set():
                if hand_back_deadline is None:
                    run.hand_back_request.touch()
                    hand_back_deadline = time.monotonic() + self._options.hand_back_grace_s
                elif time.monotonic() > hand_back_deadline:
                    raise RunHandedBack
            time.sleep(POLL_INTERVAL_S)  # `draining.wait` would return at once during a shutdown, and spin

    def _failed(self, run: RunDirectory, claim: Claim) -> Job:
        failure = run.read_failure()
        assert failure is not None
        reason = JobFailure(code=failure.code, message=failure.message, hint=failure.hint)
        if failure.is_worth_retrying:
            return self._leases.requeue(claim, reason=failure.message, lost=reason)
        return self._leases.fail(claim, reason)

    def _retry_until_redis_answers(self, act: Callable[[], ResultT]) -> ResultT:
        """Calls `act` until Redis is reachable. Raises StoreUnavailable if the worker shuts down before that."""
        is_logged = False
        while True:
            try:
                return act()
            except StoreUnavailable as error:
                if not is_logged:
                    log.warning("%s The worker reports the end of the run when Redis is back.", error)
                is_logged = True
                if self._draining.wait(1.0):
                    raise


class _Relay:
    """Relays the events of the trainer to Redis, and the requests of callers back."""

    def __init__(self, leases: Leases, claim: Claim, tail: EventTail) -> None:
        self._leases = leases
        self._claim = claim
        self._tail = tail
        self._is_unreachable = False

    def say(self, words: str) -> None:
        """Sends a message of the supervisor itself; without Redis it is dropped. Raises LeaseLost."""
        line = EventLine(at=now(), type="message", data={"message": words})
        with contextlib.suppress(StoreUnavailable):
            self._leases.record(self._claim, [line], mirrored_bytes=self._tail.offset_bytes)

    def update(self) -> RequestedActions:
        """Renews the lease, sends new events, and returns what callers have requested.

        If Redis is unreachable, the next call sends the events. Raises LeaseLost.
        """
        offset = self._tail.offset_bytes
        try:
            requested = self._leases.renew(self._claim)
            if lines := self._tail.read():
                self._leases.record(self._claim, lines, mirrored_bytes=self._tail.offset_bytes)
        except StoreUnavailable as error:
            self._tail.offset_bytes = offset  # the next call sends these lines again
            if not self._is_unreachable:
                log.warning("%s The run continues.", error)
            self._is_unreachable = True
            return RequestedActions(cancel=False, stop=False)
        if self._is_unreachable:
            log.info("Redis is back; the progress of job %s is up to date", self._claim.job.id)
        self._is_unreachable = False
        return requested


def _failure_of(error: Exception, claim: Claim) -> JobFailure:
    hint = getattr(error, "hint", None)
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return JobFailure(code="disk_full", message=str(error), hint="Free disk space, then retry the job.")
    if isinstance(error, ModelsError | OSError):
        return JobFailure(code="publishing_failed", message=str(error), hint=hint)
    log.error("job %s: unexpected error in the worker", claim.job.id, exc_info=error)
    message = f"Unexpected error in the worker: {type(error).__name__}: {error}"
    return JobFailure(
        code="internal_error", message=message, hint="The log of the worker has the details. The checkpoints are kept."
    )


def _start_trainer(run: RunDirectory, claim: Claim) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "workers.training", str(run.path)]
    command += ["--token", str(claim.token), "--parent", str(os.getpid())]
    with run.log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 -- our own module on our own path
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=code_environment(),
            start_new_session=True,
        )


def _end_group(trainer: subprocess.Popen[bytes], *, grace_s: float) -> None:
    """Ends the trainer and its data workers with SIGTERM, then SIGKILL. The device is free afterwards."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(trainer.pid, sign)
        try:
            trainer.wait(timeout=grace_s)
        except subprocess.TimeoutExpired:
            continue


def _describe_loss(exit_code: int, run: RunDirectory, job: Job) -> JobFailure:
    attempt = f"in attempt {job.attempt} of {job.max_attempts}"
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        hint = (
            "The most common reason is that the machine ran out of memory. Try a smaller batch_size or image_size_px."
        )
        return JobFailure(code="trainer_killed", message=f"The trainer was killed by {name} {attempt}.", hint=hint)
    with run.log.open("rb") as file:
        file.seek(max(0, run.log.stat().st_size - LOG_TAIL_BYTES))
        tail = file.read().decode(errors="replace").strip()
    message = f"The trainer ended with exit code {exit_code} {attempt}. The end of its log: {tail}"
    return JobFailure(code="trainer_crashed", message=message, hint="GET /v1/jobs/{id}/log shows the whole log.")
