"""Jobs that ended, counted in Redis in the transaction that ends them: deleting a job takes nothing back.

The fields of one hash: `<type>:<status>:count`, `:run_ms`, and `:runs:<n>` for the n-th span of `BOUNDS_S`. A Redis
that lost its data begins anew, as a counter of a process that was started again does.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from workers.jobs.job import Job, JobStatus

BOUNDS_S: Final = (10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14_400, 43_200, 86_400)


@dataclass(frozen=True, kw_only=True, slots=True)
class EndedJobs:
    """All jobs of one type that ended in one way."""

    type: str
    status: JobStatus
    count: int
    runs: tuple[int, ...]  # that took up to each of BOUNDS_S and more than the one before, or more than the last
    run_s: float  # together


def increments(job: Job) -> dict[str, int]:
    """What an ended job adds to the fields. A job that was never started has no duration."""
    assert job.finished_at is not None
    kind = f"{job.type}:{job.status}"
    added = {f"{kind}:count": 1}
    if job.started_at is not None:
        run_s = (job.finished_at - job.started_at).total_seconds()
        added |= {f"{kind}:run_ms": round(run_s * 1000), f"{kind}:runs:{bisect_left(BOUNDS_S, run_s)}": 1}
    return added


def read_tally(fields: Mapping[str, str]) -> list[EndedJobs]:
    """What the fields say."""
    of_kind: defaultdict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for field, value in fields.items():
        job_type, status, what = field.split(":", 2)
        of_kind[job_type, status][what] = int(value)
    return [
        EndedJobs(
            type=job_type,
            status=JobStatus(status),
            count=values["count"],
            runs=tuple(values.get(f"runs:{place}", 0) for place in range(len(BOUNDS_S) + 1)),
            run_s=values.get("run_ms", 0) / 1000,
        )
        for (job_type, status), values in sorted(of_kind.items())
    ]
