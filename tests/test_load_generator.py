"""The load generator of the benchmarks counts what it gets, whatever it gets."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from benchmarks.serving.load import OK, Tally, closed_loop, form_request, open_loop, quantile, raw_request, run
from tests.redis_server import free_port

_PICTURE = bytes(200_000)
_FINE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
_FULL_WITHOUT_A_TIME = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
_LAST = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"


def _load(answers: Sequence[bytes], port: int, work: Coroutine[Any, Any, Tally]) -> Tally:
    """`work` against a server that gives `answers` in turn; an empty one closes the connection."""
    following = itertools.cycle(answers)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                said = next(following)
                writer.write(said)
                if not said or b"close" in said:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def both() -> Tally:
        async with await asyncio.start_server(answer, "127.0.0.1", port):
            return await work

    return run(both())


def _closed(answers: Sequence[bytes]) -> Tally:
    port = free_port()
    requests = [raw_request("/x", _PICTURE), form_request("/x", [_PICTURE] * 3, field_name="image")]
    return _load(answers, port, closed_loop(port, requests, concurrency=4, seconds=0.3))


@pytest.mark.parametrize("answer", [_FINE, _CHUNKED, _LAST], ids=["sized", "chunked", "closing"])
def test_answers_of_any_framing_are_counted(answer: bytes) -> None:
    tally = _closed([answer])

    assert tally.in_time > 4
    assert tally.errors == 0
    assert tally.images_per_second > 0
    assert 0 < tally.quantile_ms(0.5) <= tally.quantile_ms(0.99)


def test_refusals_are_told_apart_and_those_without_a_time_are_counted() -> None:
    tally = _closed([_FINE, _FULL, _FULL_WITHOUT_A_TIME])

    assert len(tally.latencies_s[503]) == tally.errors > 0
    assert 0 < tally.bare_refusals < len(tally.latencies_s[503])


def test_broken_connection_is_a_failure_and_load_goes_on() -> None:
    tally = _closed([_FINE, _FINE, b""])

    assert tally.failures["ConnectionResetError"] > 0
    assert tally.in_time > 4


def test_server_that_is_not_there_is_a_failure() -> None:
    tally = run(closed_loop(free_port(), [raw_request("/x", _PICTURE)], concurrency=2, seconds=0.1))

    assert tally.failures["ConnectionRefusedError"] > 0
    assert tally.images_per_second == 0


def test_what_is_answered_on_the_ramp_is_not_in_time() -> None:
    port = free_port()

    load = closed_loop(port, [raw_request("/x", _PICTURE)], concurrency=4, seconds=0.2, ramp_s=0.2)
    tally = _load([_FINE], port, load)

    assert 0 < tally.in_time < len(tally.latencies_s[OK])
    assert tally.images_per_second == tally.goodput == pytest.approx(tally.in_time / 0.2)


def test_open_loop_sends_on_time() -> None:
    port = free_port()

    tally = _load([_FINE], port, open_loop(port, [raw_request("/x", b"")], requests_per_second=100, seconds=0.5))

    assert len(tally.latencies_s[OK]) + tally.failures.total() + tally.unsent == pytest.approx(50, abs=3)


def test_quantile_of_nothing_is_not_a_number() -> None:
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([], 0.5) != quantile([], 0.5)


def test_open_loop_says_how_late_it_was_itself() -> None:
    port = free_port()

    tally = _load([_FINE], port, open_loop(port, [raw_request("/x", b"")], requests_per_second=50, seconds=0.3))

    assert len(tally.lags_s) > 10
    assert all(0 <= lag_s < 5 for lag_s in tally.lags_s)
