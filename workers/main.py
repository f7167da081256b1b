"""The worker process: creates and connects all objects that run jobs. Imports no torch; only trainers do.

It is one process with one thread for the job that it supervises. The trainer does the work in its own process group, so
a forked pool would only add a process that can be orphaned (docs/decisions/0002).
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from celery import signals
from celery.exceptions import SecurityWarning

from models.store.registry import Registry
from workers.jobs.records import JobRecords
from workers.jobs.redis_keys import QUEUE
from workers.log_lines import configure_logging
from workers.queue import enqueue, make_celery
from workers.settings import WorkerSettings
from workers.supervision.supervisor import Supervisor, TrainerOptions
from workers.supervision.sweeper import Sweeper
from workers.tasks import register_tasks

log = logging.getLogger(__name__)


def run_worker(settings: WorkerSettings) -> int:
    """Runs jobs until SIGTERM or SIGINT. The current run then stops at a checkpoint and is queued again.

    Returns the exit code.
    """
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    for name in ("celery.worker.strategy", "celery.app.trace"):
        level = max(logging.WARNING, logging.getLogger().level)
        logging.getLogger(name).setLevel(level)  # the supervisor logs the same with the request id
    home = Path(settings.home).resolve()
    owner = f"{socket.gethostname()}:{os.getpid()}"
    records = JobRecords(settings.redis_url, home / "runs", lease_s=settings.lease_s)
    celery = make_celery(settings.redis_url, visibility_timeout_s=settings.visibility_timeout_s)
    draining = threading.Event()
    send = partial(enqueue, celery)
    supervisor = Supervisor(
        records,
        Registry(settings.registry_dir.resolve()),
        owner=owner,
        options=TrainerOptions(
            device=settings.device,
            allow_download=not settings.offline,
            cancel_grace_s=settings.cancel_grace_s,
            font=settings.font and settings.font.resolve(),
        ),
        send=send,
        draining=draining,
    )
    sweeper = Sweeper(records, owner=owner, interval_s=settings.sweep_interval_s, send=send)
    register_tasks(celery, run_job=supervisor.run_job)

    def begin(**_: Any) -> None:
        log.info("worker %s is ready: home %s", owner, home)
        sweeper.start()

    def drain(**_: Any) -> None:
        log.info("worker %s shuts down", owner)
        draining.set()

    signals.worker_ready.connect(begin, weak=False)
    signals.worker_shutting_down.connect(drain, weak=False)
    arguments = [
        "--quiet",
        "worker",
        "--pool=threads",
        "--concurrency=1",
        f"--queues={QUEUE}",
        f"--hostname=fovea@{owner}",
    ]
    arguments += ["--without-gossip", "--without-mingle", "--loglevel", settings.log_level]
    # Celery warns root users about pickle, but this application accepts only JSON
    warnings.filterwarnings("ignore", category=SecurityWarning)
    try:
        celery.worker_main(arguments)
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        sweeper.stop()
        records.close()
    return 0
