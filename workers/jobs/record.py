"""A job as it is kept, with what only workers need to know of it, and what a change of it is."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from workers.jobs.job import Job, JobStatus


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A job and what only workers need to know of it."""

    job: Job
    revision: int = 1
    token: int = 0
    mirrored_bytes: int = 0
    queued_ms: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What one compare-and-set writes."""

    job: Job
    events: tuple[tuple[str, dict[str, Any]], ...] = ()
    token: int | None = None
    mirrored_bytes: int | None = None
    take_lease: str | None = None
    drop_lease: bool = False


def applied(old: Record, change: Change) -> Record:
    """The record after the change."""
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
    """This moment, UTC."""
    return datetime.now(UTC)


def now_ms() -> int:
    """This moment, milliseconds since 1970."""
    return time.time_ns() // 1_000_000
