"""HEAD answers as GET does, without a body, on every route."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from starlette.responses import StreamingResponse
from starlette.types import Message

from app.http.head_requests import HeadMiddleware
from tests.app.raw_client import raw_client
from tests.app.routes.test_jobs import make_job
from tests.app.running_api import RunningApi
from tests.waiting import wait_until

VARYING = {"date", "server-timing", "x-request-id", "transfer-encoding", "content-length"}


def paths_of_get_routes(api: RunningApi, **values: str) -> list[str]:
    document = api.http.get("/openapi.json").json()
    found = [path.format(**values) for path, operations in document["paths"].items() if "get" in operations]
    assert len(found) > 25
    return [*found, "/", "/docs", "/openapi.json", "/docs-assets/swagger-ui.css"]


def test_head_is_that_of_a_get_on_every_route(shades: RunningApi) -> None:
    job = make_job(shades)
    run = shades.services.jobs.run(job.id)
    run.report.mkdir(parents=True)
    (run.report / "report.json").write_text("{}")
    values = {
        "name": "shades",
        "version": "1",
        "model": "shades",
        "job_id": job.id,
        "file": "report.json",
        "type": "fine_tune",
    }
    for path in paths_of_get_routes(shades, **values):
        with shades.http.stream("GET", path) as got:  # a stream: the events of a job have no end
            expected = {name: value for name, value in got.headers.items() if name not in VARYING}
        head = shades.http.head(path)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert {name: value for name, value in head.headers.items() if name not in VARYING} == expected, path
        if got.status_code < 300 and "content-length" in got.headers and path not in ("/metrics", "/v1/system"):
            assert head.headers["content-length"] == got.headers["content-length"], path


def test_head_of_what_is_not_there_has_the_status_and_no_body(compass: RunningApi) -> None:
    for path, status in (("/v1/nothing", 404), ("/v1/models/nobody", 404), ("/v1/classify", 405)):
        answer = compass.http.head(path)
        assert (answer.status_code, answer.content) == (status, b""), path


def test_connection_serves_a_get_behind_two_heads(compass: RunningApi) -> None:
    with raw_client(compass) as client:
        client.send(b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\nHEAD /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
        client.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        heads, body = client.rest().rpartition(b"\r\n\r\n")[::2]
    assert heads.count(b"HTTP/1.1 200 OK") == 3
    assert body == compass.http.get("/healthz").content


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])  # Starlette streams in two ways
def test_head_of_a_stream_without_an_end_returns(spec_version: str) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"more"

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "HEAD", "headers": [], "asgi": {"spec_version": spec_version}}
    asyncio.run(HeadMiddleware(StreamingResponse(endless(), media_type="text/plain"))(scope, receive, send))
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[1]["body"] == b""


def test_head_is_logged_and_counted_as_head(compass: RunningApi, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "fovea.access"):
        compass.http.head("/v1/models/compass", headers={"X-Request-ID": "head-1"})
        (record,) = wait_until(lambda: [line for line in caplog.records if getattr(line, "request_id", "") == "head-1"])
    assert record.getMessage().startswith("HEAD /v1/models/compass 200 ")
    assert 'method="HEAD",route="/v1/models/{name}",status="200"' in compass.http.get("/metrics").text
