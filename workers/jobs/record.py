"""A job with the fields that only workers need, and a change to it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from workers.jobs.job import Job, JobStatus


@dataclass(frozen=True, kw_only=True, slots=True)
class JobRecord:
    """A job with the fields that only workers need."""

    job: Job
    revision: int = 1  # number of the latest change
    token: int = 0  # fencing token of the latest attempt
    mirrored_bytes: int = 0  # of events.jsonl that are already in the event stream
    queued_ms: int = 0  # when the job was queued last: milliseconds since 1970


@dataclass(frozen=True, kw_only=True, slots=True)
class JobChange:
    """The changes that one compare-and-set writes."""

    job: Job
    events: tuple[tuple[str, dict[str, Any]], ...] = ()  # type and data of each
    token: int | None = None  # None: unchanged
    mirrored_bytes: int | None = None  # None: unchanged
    take_lease: str | None = None  # the owner of a new lease
    drop_lease: bool = False


def apply_change(old: JobRecord, change: JobChange) -> JobRecord:
    """Returns the record after the change."""
    is_newly_queued = change.job.status is JobStatus.QUEUED and old.job.status is not JobStatus.QUEUED
    return replace(
        old,
        job=change.job,
        revision=old.revision + 1,
        token=old.token if change.token is None else change.token,
        mirrored_bytes=old.mirrored_bytes if change.mirrored_bytes is None else change.mirrored_bytes,
        queued_ms=now_ms() if is_newly_queued else old.queued_ms,
    )


def now() -> datetime:
    """The current time in UTC."""
    return datetime.now(UTC)


def now_ms() -> int:
    """The current time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000
