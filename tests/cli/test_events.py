"""Following a job over connections that break."""

from __future__ import annotations

import httpx
import pytest

from app.client import ProblemError, ServerUnreachable
from app.client.events import parse_events
from tests.cli.answers import BrokenStream, ScriptedServer, problem


def test_event_of_several_data_lines_is_joined() -> None:
    (event,) = parse_events(["id: 7", "event: status", "data: a", "data: b", ""])

    assert (event.id, event.type, event.data) == ("7", "status", "a\nb")


def test_comments_and_events_that_are_cut_off_are_skipped() -> None:
    events = list(parse_events([": still here", "", "data: whole", "", "data: cut off"]))

    assert [event.data for event in events] == ["whole"]


def test_broken_stream_is_taken_up_after_the_last_event() -> None:
    server = ScriptedServer(
        _stream(_status("1-0", "running"), _message("2-0"), breaks=True),
        _stream(_message("3-0"), _status("4-0", "succeeded"), breaks=False),
    )

    ids = [event.id for event in server.client().jobs.events("job-1")]

    assert ids == ["1-0", "2-0", "3-0", "4-0"]
    assert server.requests[1].headers["Last-Event-ID"] == "2-0"


def test_stream_that_ends_before_the_job_is_taken_up_again() -> None:
    server = ScriptedServer(
        _stream(_status("1-0", "running"), breaks=False), _stream(_status("2-0", "failed"), breaks=False)
    )

    assert [event.data["status"] for event in server.client().jobs.events("job-1")] == ["running", "failed"]


def test_events_of_a_job_that_was_retried_go_on_after_its_failure() -> None:
    server = ScriptedServer(
        _stream(_status("1-0", "failed"), _status("2-0", "queued"), _status("3-0", "succeeded"), breaks=False)
    )

    statuses = [event.data["status"] for event in server.client().jobs.events("job-1")]

    assert statuses == ["failed", "queued", "succeeded"]


def test_server_that_restarts_meanwhile_is_waited_for() -> None:
    server = ScriptedServer(
        _stream(_status("1-0", "running"), breaks=True),
        httpx.ConnectError("refused"),
        problem(503, "redis_unavailable"),
        _stream(_status("2-0", "succeeded"), breaks=False),
    )

    assert [event.id for event in server.client().jobs.events("job-1")] == ["1-0", "2-0"]


def test_server_that_stays_away_ends_the_following() -> None:
    server = ScriptedServer(
        _stream(_status("1-0", "running"), breaks=True), *[httpx.ConnectError("refused") for _ in range(9)]
    )

    with pytest.raises(ServerUnreachable):
        list(server.client().jobs.events("job-1", patience_s=0))


def test_unknown_job_is_said_at_once() -> None:
    server = ScriptedServer(problem(404, "unknown_job"))

    with pytest.raises(ProblemError):
        list(server.client().jobs.events("job-1"))


def _status(event_id: str, status: str) -> str:
    return _event(event_id, "status", f'{{"status":"{status}","attempt":1}}')


def _message(event_id: str) -> str:
    return _event(event_id, "message", '{"message":"hello"}')


def _event(event_id: str, kind: str, data: str) -> str:
    body = f'{{"id":"{event_id}","at":"2026-01-01T00:00:00Z","type":"{kind}","data":{data}}}'
    return f"id: {event_id}\nevent: {kind}\ndata: {body}\n\n"


def _stream(*events: str, breaks: bool) -> httpx.Response:
    return httpx.Response(
        200, headers={"Content-Type": "text/event-stream"}, stream=BrokenStream(*events, breaks=breaks)
    )
