"""The Celery tasks: thin, for what they do is in `supervisor`."""

from __future__ import annotations

from collections.abc import Callable

from celery import Celery, Task

from workers.queue import RUN_JOB, request_id_of


def register_tasks(celery: Celery, *, run_job: Callable[[str, str | None], None]) -> None:
    """Makes this process answer to the messages of `queue`."""

    @celery.task(name=RUN_JOB, bind=True)  # type: ignore[untyped-decorator]
    def run_job_task(task: Task, job_id: str) -> None:
        run_job(job_id, request_id_of(task.request))
