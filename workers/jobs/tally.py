"""Counts the jobs that ended. The transaction that ends a job counts it, and deleting a job does not change the counts.

The counts are fields of one hash in Redis: `<type>:<status>:count`, `:run_ms`, and `:runs:<n>` for the n-th interval of
`BOUNDS_S`. If Redis loses its data, the counts start at 0 again, like the counters of a restarted process.
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
    """The number and the durations of all jobs of one type that ended with one status."""

    type: str
    status: JobStatus
    count: int
    runs_by_duration: tuple[int, ...]  # runs up to BOUNDS_S[0] long, then up to BOUNDS_S[1], …, then all longer ones
    run_s: float  # total duration of all runs


def increments(job: Job) -> dict[str, int]:
    """Returns what an ended job adds to each field. A job that never started has no duration."""
    assert job.finished_at is not None
    kind = f"{job.type}:{job.status}"
    added = {f"{kind}:count": 1}
    if job.started_at is not None:
        run_s = (job.finished_at - job.started_at).total_seconds()
        added |= {f"{kind}:run_ms": round(run_s * 1000), f"{kind}:runs:{bisect_left(BOUNDS_S, run_s)}": 1}
    return added


def read_tally(fields: Mapping[str, str]) -> list[EndedJobs]:
    """Reads the counts from the fields of the hash."""
    of_kind: defaultdict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for field, value in fields.items():
        job_type, status, what = field.split(":", 2)
        of_kind[job_type, status][what] = int(value)
    return [
        EndedJobs(
            type=job_type,
            status=JobStatus(status),
            count=values["count"],
            runs_by_duration=tuple(values.get(f"runs:{place}", 0) for place in range(len(BOUNDS_S) + 1)),
            run_s=values.get("run_ms", 0) / 1000,
        )
        for (job_type, status), values in sorted(of_kind.items())
    ]
