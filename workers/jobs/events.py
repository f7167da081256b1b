"""The events of jobs: one stream in Redis per job."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, Final

from workers.jobs import redis_keys as keys
from workers.jobs.job import JobEvent
from workers.jobs.record import now
from workers.jobs.redis_connection import connect_async, translated_errors

MAX_EVENTS: Final = 20_000  # per job; Redis drops older events, and events.jsonl keeps all


def add_event(pipeline: Any, job_id: str, event_type: str, data: dict[str, Any]) -> None:
    """Adds an event in the transaction of `pipeline`."""
    content = dict(data)
    at = content.pop("at", None) or now().isoformat()
    entry = {"at": at, "type": event_type, "data": json.dumps(content)}
    pipeline.xadd(keys.events(job_id), entry, maxlen=MAX_EVENTS, approximate=True)


def read_events(client: Any, job_id: str, *, after: str | None, limit: int) -> list[JobEvent]:
    """The events of a job in order, after the event id `after`."""
    found = client.xrange(keys.events(job_id), min=f"({after}" if after else "-", count=limit)
    return [_event(entry_id, fields) for entry_id, fields in found]


async def follow_events(redis_url: str, job_id: str, *, after: str | None) -> AsyncIterator[list[JobEvent]]:
    """Yields the events after `after` in batches as they occur, and an empty batch after each second without events.

    Raises StoreUnavailable.
    """
    client = connect_async(redis_url)
    position = after or "0"
    try:
        with translated_errors():
            while True:
                answer = await client.xread({keys.events(job_id): position}, count=500, block=1000)
                batch = [_event(entry_id, fields) for entry_id, fields in _entries(answer)]
                if batch:
                    position = batch[-1].id
                yield batch
    finally:
        await client.aclose()


def _event(entry_id: str, fields: dict[str, str]) -> JobEvent:
    return JobEvent.model_validate({"id": entry_id, **fields, "data": json.loads(fields["data"])})


def _entries(answer: Any) -> list[tuple[str, dict[str, str]]]:
    """The entries of the one stream in a result of XREAD: pairs in RESP2, a mapping of lists of lists in RESP3."""
    if not answer:
        return []
    if isinstance(answer, dict):
        (chunks,) = answer.values()
        return [entry for chunk in chunks for entry in chunk]
    ((_, entries),) = answer
    return list(entries)
