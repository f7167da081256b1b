"""`python -m workers.health` checks that the worker of this container or machine answers. It is for health checks.

The check goes through Redis, like the jobs, so a worker that hangs or has lost its broker is unhealthy. It costs one
start of Python with Celery, without torch. The exit code is 0 for a healthy worker, else 1.
"""

from __future__ import annotations

import socket
import sys

from workers.queue import make_celery
from workers.settings import WorkerSettings

DEFAULT_TIMEOUT_S = 8.0


def worker_answers(redis_url: str, *, hostname: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> bool:
    """Returns True if a worker on the host `hostname` answers in time.

    Raises kombu's OperationalError if Redis is unreachable.
    """
    celery = make_celery(redis_url, visibility_timeout_s=1)
    # `workers.main` names a worker fovea@HOST:PID
    answers = celery.control.ping(timeout=timeout_s, limit=1, pattern=f"fovea@{hostname}:*", matcher="glob")
    return bool(answers)


if __name__ == "__main__":
    sys.exit(0 if worker_answers(WorkerSettings().redis_url, hostname=socket.gethostname()) else 1)
