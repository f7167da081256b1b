"""The Celery tasks. They are thin: `supervision/supervisor.py` does the work."""

from __future__ import annotations

from collections.abc import Callable

from celery import Celery, Task

from workers.queue import RUN_JOB, request_id_of


def register_tasks(celery: Celery, *, run_job: Callable[[str, str | None], None]) -> None:
    """Registers the task for the messages of `queue`. run_job: called with a job id and a request id."""

    @celery.task(name=RUN_JOB, bind=True)  # type: ignore[untyped-decorator]
    def run_job_task(task: Task, job_id: str) -> None:
        run_job(job_id, request_id_of(task.request))
