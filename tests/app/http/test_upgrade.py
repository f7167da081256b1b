"""A request that offers to change the protocol is answered like the same request without the offer.

Java's HttpClient and `curl --http2` send `Upgrade: h2c` with every first request of a connection.
"""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from app.http.protocol import BoundedHttpProtocol
from tests import children
from tests.app import pictures
from tests.app.running_api import RunningApi
from tests.waiting import BRIEF_S, PATIENCE_S, wait_until

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
OFFERS = {
    "java": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
    "reversed": b"upgrade: h2c\r\nconnection: upgrade\r\n",
    "websocket": b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    "several": b"Connection: Upgrade\r\nUpgrade: TLS/1.3, h2c;q=1\r\nUpgrade: other\r\n",
    "empty": b"Connection: Upgrade\r\nUpgrade:\r\n",
    "no connection": b"Upgrade: h2c\r\n",
}
FRAMES = {
    "length": b"Content-Length: %d\r\n\r\n%b" % (len(SMUGGLED), SMUGGLED),
    "chunks": b"Transfer-Encoding: chunked\r\n\r\n5\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n"
    % (SMUGGLED[:5], len(SMUGGLED) - 5, SMUGGLED[5:]),
    "trailers": b"Transfer-Encoding: chunked\r\nTrailer: Upgrade\r\n\r\n%x\r\n%b\r\n0\r\nUpgrade: h2c\r\n"
    b"Connection: Upgrade\r\n\r\n" % (len(SMUGGLED), SMUGGLED),
    "expect": b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n%b" % (len(SMUGGLED), SMUGGLED),
    "nothing": b"\r\n",
}


class PiecewiseProtocol(BoundedHttpProtocol):
    """Gets everything that is received in pieces of `size` bytes."""

    size = 2**20

    def data_received(self, data: bytes) -> None:
        for at in range(0, len(data), self.size):
            super().data_received(data[at : at + self.size])


class BytewiseProtocol(PiecewiseProtocol):
    size = 1


class SevenBytesProtocol(PiecewiseProtocol):
    size = 7


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what it was asked."""
    body = b""
    while (message := await receive()).get("more_body"):
        body += message["body"]
    body += message["body"]
    asked = {"method": scope["method"], "path": scope["path"], "body": body.decode()}
    answer = json.dumps(asked).encode() + b"\r\n"
    headers = [(b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


@contextmanager
def serving(protocol: type[BoundedHttpProtocol]) -> Iterator[int]:
    """The port of a server of `echo`."""
    config = uvicorn.Config(echo, port=0, http=protocol, lifespan="off", log_config=None, timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)


@pytest.fixture(scope="module", params=[PiecewiseProtocol, SevenBytesProtocol, BytewiseProtocol])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """A server that receives everything whole, or in pieces that end anywhere."""
    with serving(request.param) as port:
        yield port


def answers(port: int, *requests: bytes) -> list[bytes]:
    """The lines of everything that comes back until the server closes the connection, but for those of the clock."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        connection.sendall(b"".join(requests))
        received = b""
        while piece := connection.recv(65536):
            received += piece
    return [line for line in received.split(b"\r\n") if not line.startswith((b"date:", b"server:"))]


LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_offer_changes_nothing(port: int, offer: str, frame: str, version: bytes) -> None:
    start = b"POST /first?a=%%C3%%A4 HTTP/%b\r\nHost: x\r\n" % version
    plain, offered = (start + FRAMES[frame], start + OFFERS[offer] + FRAMES[frame])
    expected = answers(port, plain, plain, LAST)
    assert answers(port, offered, offered, LAST) == expected
    assert answers(port, offered + plain + offered, LAST) == answers(port, plain * 3, LAST)
    bodies = [json.loads(line) for line in expected if line.startswith(b"{")]
    sent = "" if frame == "nothing" else SMUGGLED.decode()
    assert bodies[0] == {"method": "POST", "path": "/first", "body": sent}
    assert len(bodies) == (3 if version == b"1.1" else 1)


def test_head_and_body_in_segments_of_their_own_are_one_request(port: int) -> None:
    head, _, body = FRAMES["length"].partition(b"\r\n\r\n")
    start = b"POST / HTTP/1.1\r\nHost: x\r\n" + OFFERS["java"] + head + b"\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        for _ in range(2):
            connection.sendall(start)
            connection.settimeout(BRIEF_S)
            with pytest.raises(TimeoutError):  # the server waits for the body
                connection.recv(1)
            connection.settimeout(PATIENCE_S)
            connection.sendall(body)
            answer = connection.recv(65536)
            assert answer.count(b"HTTP/1.1 200") == 1
            assert json.loads(answer.splitlines()[-1])["body"] == SMUGGLED.decode()


def test_many_offers_in_one_segment_are_answered_in_order(port: int) -> None:
    many = b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n%b\r\n" % (number, OFFERS["java"]) for number in range(500))
    found = [json.loads(line)["path"] for line in answers(port, many, LAST) if line.startswith(b"{")]
    assert found == [*(f"/{number}" for number in range(500)), "/last"]


def test_offer_with_close_closes_behind_the_answer(port: int) -> None:
    start = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade\r\nUpgrade: h2c\r\n"
    found = [line for line in answers(port, start + FRAMES["length"] + LAST) if line.startswith(b"{")]
    assert [json.loads(line)["path"] for line in found] == ["/"]


@pytest.mark.parametrize("target", [b"x:80", b"/v1/jobs", b"http://x/"])
def test_tunnel_is_refused_with_what_follows(port: int, target: bytes) -> None:
    found = answers(port, b"CONNECT %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (target, 99) + SMUGGLED)
    assert [line.split()[1] for line in found if line.startswith(b"HTTP/1.1")] == [b"400"]


def test_header_lines_are_not_changed(port: int) -> None:
    """A value that looks like the end of a head stays a value."""
    folded = b"X-Folded: a\r\n Content-Length: 5\r\n"
    for frame in FRAMES.values():
        start = b"POST /a HTTP/1.1\r\nHost: x\r\nX-Odd: \xc3\xa4 \t: , Upgrade: b\r\n"
        assert answers(port, start + OFFERS["java"] + frame, LAST) == answers(port, start + frame, LAST)
        assert answers(port, start + folded + OFFERS["java"] + frame, LAST) == answers(
            port, start + folded + frame, LAST
        )


def test_image_of_a_client_that_offers_is_classified(compass: RunningApi) -> None:
    image = pictures.png()
    head = b"POST /v1/classify?model=compass HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    end = b"Content-Length: %d\r\n\r\n" % len(image)
    found = b"\n".join(answers(compass.port, head + OFFERS["java"] + end, image, LAST.replace(b"/last", b"/healthz")))
    assert (found.count(b"HTTP/1.1 200"), found.count(b'"predictions"')) == (2, 1)


@pytest.mark.parametrize("options", [(), ("--http2",), ("--http2", "-H", "Expect: 100-continue")])
def test_curl_uploads_an_image(compass: RunningApi, tmp_path: Path, options: tuple[str, ...]) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    image = tmp_path / "image.png"
    image.write_bytes(pictures.png())
    url = f"http://127.0.0.1:{compass.port}/v1/classify?model=compass"
    command = ["curl", "-sf", *options, "-F", f"image=@{image}", url, url]
    result = children.run(command, check=False)
    assert (result.returncode, result.stdout.count('"predictions"')) == (0, 2)
