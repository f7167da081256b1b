"""The text of `GET /metrics`: counters, gauges and jobs in Prometheus's text format."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from prometheus_client import generate_latest

from app.engine.engine import Engine
from app.metrics.instruments import Instruments
from app.metrics.job_families import JobFamilies
from workers.errors import StoreUnavailable
from workers.jobs.store import JobStatistics, JobStore

log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_LONGEST_READING_S: Final = 2.0  # of the job store; Prometheus itself gives up after 10 s
_WRITTEN_OUT_EVERY_S: Final = 1.0


class Exposition:
    """Writes the metrics of one engine and one job store. Used from one event loop."""

    def __init__(self, instruments: Instruments, *, engine: Engine, jobs: JobStore) -> None:
        self._instruments = instruments
        self._engine = engine
        self._jobs = jobs
        self._reading: asyncio.Future[JobStatistics] | None = None

    async def text(self) -> bytes:
        """All metrics, without those of jobs if Redis does not answer in time."""
        return await asyncio.to_thread(self._text, await self._read_jobs())

    async def keep_others_informed(self) -> None:
        """Writes this replica's metrics for the other replicas every second, until it is cancelled."""
        shared = self._instruments.shared
        assert shared is not None
        try:
            while True:
                try:
                    await asyncio.to_thread(self._instruments.gauges.set_to, self._engine)
                    shared.write_out()
                except Exception:  # a background task: the next try may succeed
                    log.exception("the metrics of this replica were not written for the others")
                await asyncio.sleep(_WRITTEN_OUT_EVERY_S)
        finally:
            shared.write_out()

    def _text(self, jobs: JobStatistics | None) -> bytes:
        self._instruments.gauges.set_to(self._engine)
        return generate_latest(self._instruments.registry) + generate_latest(JobFamilies(jobs))

    async def _read_jobs(self) -> JobStatistics | None:
        if (
            self._reading is None or self._reading.done()
        ):  # a Redis that hangs blocks one thread, however many requests come
            self._reading = asyncio.get_running_loop().run_in_executor(None, self._jobs.statistics)
            self._reading.add_done_callback(_see_error)
        try:
            async with asyncio.timeout(_LONGEST_READING_S):
                return await asyncio.shield(self._reading)
        except (StoreUnavailable, TimeoutError):
            return None


def _see_error(reading: asyncio.Future[JobStatistics]) -> None:
    """Retrieves the error of a reading that nothing awaits any more."""
    if not reading.cancelled():
        reading.exception()
