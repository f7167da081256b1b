"""Every key in Redis.

    fovea:jobs                   zset    job ids by creation time [ms]
    fovea:job:<id>               hash    doc (Job as JSON), type, status (of the doc), revision, token (fencing),
                                         mirrored (bytes of events.jsonl that are in the stream), queued_ms
    fovea:job:<id>:lease         string  owner of the running attempt; expires unless renewed
    fovea:job:<id>:events        stream  JobEvent: `job_events`
    fovea:jobs:ended             hash    how many ended, and after how long: `job_tally`
    fovea:sweep                  string  lock: one worker looks for lost jobs at a time
    fovea:restored               string  absent in a Redis that came back empty
    fovea:idempotency:<sha256>   string  of the scope and key: `idempotency_store`
    fovea                        list    Celery's queue

Redis never holds the only copy of a job: `job_mirror`.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

JOBS: Final = "fovea:jobs"
ENDED: Final = "fovea:jobs:ended"
SWEEP: Final = "fovea:sweep"
RESTORED: Final = "fovea:restored"
QUEUE: Final = "fovea"

_JOB_ID: Final = re.compile(r"job-[0-9a-f]{1,40}", re.ASCII)


def is_job_id(text: str) -> bool:
    """Anything else could name another key."""
    return _JOB_ID.fullmatch(text) is not None


def job(job_id: str) -> str:
    """Of its hash."""
    return f"fovea:job:{job_id}"


def lease(job_id: str) -> str:
    """Of who runs it."""
    return f"fovea:job:{job_id}:lease"


def events(job_id: str) -> str:
    """Of its stream."""
    return f"fovea:job:{job_id}:events"


def idempotency(scope: str, key: str) -> str:
    """Of an answer, or of the claim to make it."""
    return f"fovea:idempotency:{hashlib.sha256(f'{scope} {key}'.encode()).hexdigest()}"
