"""The relay between a trainer's files and Redis: every line arrives, in order, even if Redis was away."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

from tests.workers.jobs_builders import a_job
from workers.errors import StoreUnavailable
from workers.jobs.leases import Claim, LeaseLost, Leases, RequestedActions
from workers.run_directory import EventLine, EventTail
from workers.supervision.supervisor import _Relay

NOTHING = RequestedActions(cancel=False, stop=False)
CLAIM = Claim(job=a_job(), token=1, owner="worker", mirrored_bytes=0)


class ShakyLeases:
    """Leases in a Redis that does not answer once when a test says so. Notes what Redis would have."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error or StoreUnavailable("Redis is unreachable.")
        self.away_at: set[str] = set()
        self.written: list[tuple[list[EventLine], int]] = []

    def renew(self, _: Claim) -> RequestedActions:
        self._answer("renew")
        return RequestedActions(cancel=True, stop=True)

    def record(self, _: Claim, lines: list[EventLine], *, mirrored_bytes: int) -> None:
        self._answer("record")
        self.written.append((lines, mirrored_bytes))

    def _answer(self, what: str) -> None:
        if what in self.away_at:
            self.away_at.clear()
            raise self._error


@pytest.mark.parametrize("call", ["renew", "record"])
def test_lines_that_redis_did_not_get_are_sent_again_in_order(tmp_path: Path, call: str) -> None:
    leases, events = ShakyLeases(), tmp_path / "events.jsonl"
    relay = _Relay(cast("Leases", leases), CLAIM, EventTail(path=events))
    first, second, third = (_line(number) for number in (1, 2, 3))

    _append(events, first)
    assert relay.update() == RequestedActions(cancel=True, stop=True)
    _append(events, second)
    leases.away_at = {call}
    assert relay.update() == NOTHING
    _append(events, third)
    relay.update()
    relay.update()

    sizes = [len(_text(line)) for line in (first, second, third)]
    assert leases.written == [([first], sizes[0]), ([second, third], sum(sizes))]


def test_relay_starts_where_the_attempt_before_stopped(tmp_path: Path) -> None:
    leases, events = ShakyLeases(), tmp_path / "events.jsonl"
    old, new = _line(1), _line(2)
    _append(events, old)
    _append(events, new)
    tail = EventTail(path=events, offset_bytes=len(_text(old)))
    _Relay(cast("Leases", leases), CLAIM, tail).update()
    assert [lines for lines, _ in leases.written] == [[new]]


def test_line_that_is_being_written_is_left_for_the_next_look(tmp_path: Path) -> None:
    leases, events = ShakyLeases(), tmp_path / "events.jsonl"
    relay = _Relay(cast("Leases", leases), CLAIM, EventTail(path=events))
    first, second = _line(1), _line(2)
    half = len(_text(second)) // 2
    events.write_bytes(_text(first) + _text(second)[:half])
    relay.update()
    events.write_bytes(_text(first) + _text(second))
    relay.update()
    assert [lines for lines, _ in leases.written] == [[first], [second]]


def test_lost_lease_is_not_taken_for_a_redis_that_is_away(tmp_path: Path) -> None:
    leases = ShakyLeases(error=LeaseLost("taken"))
    leases.away_at = {"renew"}
    with pytest.raises(LeaseLost):
        _Relay(cast("Leases", leases), CLAIM, EventTail(path=tmp_path / "none")).update()


def _line(epoch: int) -> EventLine:
    return EventLine(at=datetime(2026, 1, epoch, tzinfo=UTC), type="progress", data={"epoch": epoch})


def _text(line: EventLine) -> bytes:
    return line.model_dump_json().encode() + b"\n"


def _append(path: Path, line: EventLine) -> None:
    with path.open("ab") as file:
        file.write(_text(line))
