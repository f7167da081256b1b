"""All keys in Redis.

    fovea:jobs                   zset    job ids by creation time [ms]
    fovea:job:<id>               hash    doc (Job as JSON), type and status (copies from doc), revision,
                                         token (fencing), mirrored (bytes of events.jsonl that are in the stream),
                                         queued_ms
    fovea:job:<id>:lease         string  owner of the running attempt; expires unless renewed
    fovea:job:<id>:events        stream  JobEvent, see `events`
    fovea:jobs:ended             hash    number and durations of ended jobs, see `tally`
    fovea:sweep                  string  lock: one worker at a time looks for lost jobs
    fovea:restored               string  missing if Redis lost its data
    fovea:idempotency:<sha256>   string  claim or answer, see `idempotency_store`; the hash is of scope and key
    fovea                        list    the queue of Celery

Redis never holds the only copy of a job, see `mirror`.
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
    """Returns True if `text` has the form of a job id. Any other text could form the name of another key."""
    return _JOB_ID.fullmatch(text) is not None


def job(job_id: str) -> str:
    """The key of the hash of a job."""
    return f"fovea:job:{job_id}"


def lease(job_id: str) -> str:
    """The key of the lease of a job."""
    return f"fovea:job:{job_id}:lease"


def events(job_id: str) -> str:
    """The key of the event stream of a job."""
    return f"fovea:job:{job_id}:events"


def idempotency(scope: str, key: str) -> str:
    """The key of the answer to a request, or of the claim to answer it."""
    return f"fovea:idempotency:{hashlib.sha256(f'{scope} {key}'.encode()).hexdigest()}"
