"""Finds jobs that would otherwise wait for ever: those whose worker was lost, and those whose message was lost."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from workers.errors import StoreUnavailable
from workers.jobs.job import JobStatus
from workers.jobs.leases import Leases
from workers.jobs.records import JobRecords
from workers.log_lines import log_fields

log = logging.getLogger(__name__)


class Sweeper:
    """A thread that every worker runs. A lock in Redis lets one worker at a time look for lost jobs."""

    def __init__(self, records: JobRecords, *, owner: str, interval_s: float, send: Callable[[str], None]) -> None:
        self._records = records
        self._leases = Leases(records)
        self._owner = owner
        self._interval_s = interval_s
        self._send = send
        self._has_swept = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join(timeout=5)

    def sweep(self) -> list[str]:
        """Looks for lost jobs once. Returns the ids of the jobs that it sent to the workers again.

        Raises StoreUnavailable.
        """
        if restored := self._records.restore(only_if_emptied=self._has_swept):
            log.warning("Redis had lost %d jobs; they were restored from the run directories", len(restored))
        self._has_swept = True
        if not self._records.take_sweep_lock(self._owner, seconds=self._interval_s * 0.9):
            return []
        lost = self._leases.end_lost_attempts()
        for job in lost:
            with log_fields(job_id=job.id, request_id=job.request_id):
                log.warning("job %s lost its worker in attempt %d and is now %s", job.id, job.attempt, job.status)
        again = [job.id for job in lost if job.status is JobStatus.QUEUED]
        again += [job_id for job_id in self._leases.unsent_jobs(older_than_s=self._interval_s) if job_id not in again]
        for job_id in again:
            self._send(job_id)
        return again

    def _run(self) -> None:
        is_unreachable = False
        while not self._ended.is_set():
            try:
                self.sweep()
                is_unreachable = False
            except StoreUnavailable as error:
                if not is_unreachable:
                    log.warning("%s Trying again every %.0f s.", error, self._interval_s)
                is_unreachable = True
            self._ended.wait(self._interval_s)
