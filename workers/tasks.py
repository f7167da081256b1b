"""The Celery tasks: thin, for what they do is in `supervisor`."""

from __future__ import annotations

from collections.abc import Callable

from celery import Celery

from workers.queue import RUN_JOB


def register_tasks(celery: Celery, *, run_job: Callable[[str], None]) -> None:
    """Makes this process answer to the messages of `queue`."""

    @celery.task(name=RUN_JOB)  # type: ignore[untyped-decorator]
    def run_job_task(job_id: str) -> None:
        run_job(job_id)
