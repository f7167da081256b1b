"""Whether the worker of this container, or machine, answers: `python -m workers.health`, for health checks.

It asks through Redis, as callers do, so a worker that hangs or has lost its broker is unhealthy. Costs one start of
Python with Celery and no torch. Exit code 0 is well, 1 is not.
"""

from __future__ import annotations

import socket
import sys

from workers.queue import make_celery
from workers.settings import WorkerSettings

LONGEST_WAIT_S = 8.0


def worker_answers(redis_url: str, *, hostname: str, timeout_s: float = LONGEST_WAIT_S) -> bool:
    """Whether a worker with that host name answers in time; those of other hosts are not asked.

    Raises kombu's OperationalError when Redis is away.
    """
    celery = make_celery(redis_url, visibility_timeout_s=1)
    # the name that `main` gives a worker is fovea@HOST:PID
    answers = celery.control.ping(timeout=timeout_s, limit=1, pattern=f"fovea@{hostname}:*", matcher="glob")
    return bool(answers)


if __name__ == "__main__":
    sys.exit(0 if worker_answers(WorkerSettings().redis_url, hostname=socket.gethostname()) else 1)
