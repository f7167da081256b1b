"""What comes before a body is bounded, in bytes and in time."""

from __future__ import annotations

import pytest

from app.http import protocol as http_protocol
from app.http.protocol import MOST_HEAD_BYTES
from tests.app.raw_client import RawClient, raw_client
from tests.app.running_api import RunningApi

ASK = b"GET /healthz HTTP/1.1\r\nHost: here\r\n"


def send_much(client: RawClient) -> None:
    for _ in range(100_000):
        client.send(b"a" * 65536)


@pytest.mark.parametrize("head", [b"GET /", ASK + b"X-Endless: "], ids=["path", "header"])
@pytest.mark.parametrize("is_first", [True, False])
def test_head_without_an_end_is_refused(compass: RunningApi, head: bytes, is_first: bool) -> None:
    with raw_client(compass) as client:
        if not is_first:
            client.send(ASK + b"\r\n")
            assert client.head().startswith(b"http/1.1 200")
        client.send(head)
        with pytest.raises(ConnectionError):
            send_much(client)


def test_too_large_a_head_hears_why(compass: RunningApi) -> None:
    with raw_client(compass) as client:
        client.send(ASK + b"X-Large: " + b"a" * (MOST_HEAD_BYTES + 1))
        head, body = client.answer()
        assert head.startswith(b"http/1.1 431 ")
        assert b"65536 bytes" in body
        assert client.rest() == b""


def test_large_head_that_ends_is_read(compass: RunningApi) -> None:
    with raw_client(compass) as client:
        for _ in range(3):  # it is counted anew for every request
            for part in (ASK + b"X-Large: ", b"a" * 30_000, b"a" * 30_000, b"\r\n\r\n"):
                client.send(part)
            assert client.head().startswith(b"http/1.1 200")


def test_body_that_comes_in_large_parts_counts_for_no_head(compass: RunningApi) -> None:
    with raw_client(compass) as client:
        for _ in range(2):
            head = b"POST /v1/classify?model=compass HTTP/1.1\r\nHost: here\r\nContent-Length: 1000000\r\n\r\n"
            client.send(head)
            client.send(bytes(1_000_000))  # the server reads 65,536 and more at once
            assert client.head().startswith(b"http/1.1 415")


@pytest.mark.parametrize("sent", [b"", ASK, b"\r\n\r\n", ASK + b"\r\n" + ASK])
def test_connection_whose_head_does_not_come_is_closed(
    compass: RunningApi, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.2)
    with raw_client(compass) as client:
        client.send(sent)
        assert client.rest().count(b"HTTP/1.1 200") == (1 if sent.count(b"GET") == 2 else 0)
    assert compass.http.get("/healthz").status_code == 200


def test_connection_that_has_asked_may_wait_for_its_body_and_ask_again(
    compass: RunningApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.2)
    with raw_client(compass) as client:
        head = b"POST /v1/classify?model=compass HTTP/1.1\r\nHost: here\r\nContent-Length: 2\r\n\r\n"
        client.send(head)
        with raw_client(compass) as other:  # one that is closed by the clock tells that the time is over
            assert other.rest() == b""
        client.send(b"no")
        assert client.head().startswith(b"http/1.1 415")
        client.send(ASK + b"\r\n")
        assert client.head().startswith(b"http/1.1 200")
