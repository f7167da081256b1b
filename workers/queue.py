"""Sends jobs to workers: a Celery message that contains only the id of a job.

The job itself is in the job store, so a lost or repeated message does no harm (see `jobs/leases.py`). Therefore
`visibility_timeout` only decides how soon Redis delivers an unacknowledged message again.
"""

from __future__ import annotations

import logging

from celery import Celery
from celery.app.task import Context
from kombu.exceptions import OperationalError

from workers.jobs.redis_keys import QUEUE
from workers.log_lines import log_fields

log = logging.getLogger(__name__)

RUN_JOB = "fovea.run_job"
_REQUEST_ID = "request_id"


def make_celery(redis_url: str, *, visibility_timeout_s: int) -> Celery:
    """Returns the Celery application, for callers and for workers. It does not connect yet."""
    celery = Celery("fovea", broker=redis_url)
    celery.conf.update(
        task_default_queue=QUEUE,
        task_ignore_result=True,  # the job store has the result
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,  # a busy worker must not reserve a job that an idle one could run
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        worker_cancel_long_running_tasks_on_connection_loss=False,  # a run continues without Redis
        worker_hijack_root_logger=False,
        accept_content=["json"],
        broker_transport_options={
            "visibility_timeout": visibility_timeout_s,
            "socket_connect_timeout": 2.0,
            "socket_timeout": 5.0,
        },
    )
    return celery


def enqueue(celery: Celery, job_id: str, request_id: str | None = None) -> None:
    """Sends a queued job to the workers. While Redis is unreachable it only logs that: the next sweep sends the job."""
    headers = {_REQUEST_ID: request_id} if request_id else {}
    try:
        celery.send_task(RUN_JOB, args=[job_id], headers=headers, retry=False)
    except OperationalError as error:
        with log_fields(job_id=job_id, request_id=request_id):
            log.warning("cannot send job %s to the workers now; the next sweep sends it: %s", job_id, error)


def request_id_of(message: Context) -> str | None:
    """Returns the X-Request-ID of the request that sent the message, or None if a sweep sent it."""
    found = message.get(_REQUEST_ID)
    return found if isinstance(found, str) else None
