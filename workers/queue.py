"""How a job reaches a worker: a Celery message that holds nothing but the job's id.

What is in the message does not matter and neither does losing or repeating it (see `leases`): the job itself is in the
job store. `visibility_timeout` is therefore only how soon Redis offers an unacknowledged message again.
"""

from __future__ import annotations

from celery import Celery
from celery.app.task import Context
from kombu.exceptions import OperationalError

from workers.errors import StoreUnavailable
from workers.jobs.redis_keys import QUEUE

RUN_JOB = "fovea.run_job"
_REQUEST_ID = "request_id"


def make_celery(redis_url: str, *, visibility_timeout_s: int) -> Celery:
    """The Celery application of callers and workers alike; no connection is made yet."""
    celery = Celery("fovea", broker=redis_url)
    celery.conf.update(
        task_default_queue=QUEUE,
        task_ignore_result=True,  # what a job did is in the job store
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,  # a busy worker keeps no job from an idle one
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        worker_cancel_long_running_tasks_on_connection_loss=False,  # a run survives Redis
        worker_hijack_root_logger=False,
        accept_content=["json"],
        broker_transport_options={
            "visibility_timeout": visibility_timeout_s,
            "socket_connect_timeout": 2.0,
            "socket_timeout": 5.0,
        },
    )
    return celery


def enqueue(celery: Celery, job_id: str, *, request_id: str | None = None) -> None:
    """Offers a queued job to the workers. Raises StoreUnavailable when Redis is away; the sweep offers it later."""
    headers = {_REQUEST_ID: request_id} if request_id else {}
    try:
        celery.send_task(RUN_JOB, args=[job_id], headers=headers, retry=False)
    except OperationalError as error:
        raise StoreUnavailable(f"Redis is away: {error}", hint="Start Redis, or check FOVEA_REDIS_URL.") from error


def request_id_of(message: Context) -> str | None:
    """The X-Request-ID of the call that sent the message; None if it was a sweep that sent it."""
    found = message.get(_REQUEST_ID)
    return found if isinstance(found, str) else None
