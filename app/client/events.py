"""Server-Sent Events as an iterator. Source: HTML Living Standard, section 9.2, "Server-sent events"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerSentEvent:
    """One event of a stream."""

    id: str | None  # of this event, or of the last event that had one
    type: str
    data: str


def parse_events(lines: Iterable[str]) -> Iterator[ServerSentEvent]:
    """The events in `lines`, which have no line ends. Comments and an incomplete last event are skipped."""
    last_id: str | None = None
    kind, data = "message", list[str]()
    for line in lines:
        if not line:
            if data:
                yield ServerSentEvent(id=last_id, type=kind, data="\n".join(data))
            kind, data = "message", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                data.append(value)
            case "event":
                kind = value
            case "id":
                last_id = value
            case _:  # a comment (no name), `retry`, or something newer
                pass
