"""A load generator that costs little: HTTP/1.1 over kept connections, requests made into bytes beforehand.

`closed_loop` keeps a fixed number of requests under way; `open_loop` sends a fixed number per second, whatever comes
back. Neither reads a body: the servers' answers are checked before they are measured.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import uvloop

HOST = "127.0.0.1"
OK, UNAVAILABLE = 200, 503
_PAUSE_AFTER_REFUSAL_S = 0.05
_LAST_ANSWERS_WITHIN_S = 120.0
_EVERY_S = 0.002  # the open loop sends what is due
_BOUNDARY = "fovea-bench-9b1f0c"

ValueT = TypeVar("ValueT")


@dataclass(kw_only=True)
class Tally:
    """What came back of one stretch of load."""

    seconds: float
    images_per_request: int = 1
    has_ramp: bool = False  # there was load before the stretch
    began_at: float = field(default_factory=time.perf_counter)
    in_time: int = 0  # answered 200 within the stretch
    last_in_time_s: float = 0.0  # when the last of those came, after the start
    latencies_s: defaultdict[int, list[float]] = field(default_factory=lambda: defaultdict(list))  # by status
    failures: Counter[str] = field(default_factory=Counter)  # connections that broke, by what was wrong
    bare_refusals: int = 0  # 503 without Retry-After
    unsent: int = 0  # due in the open loop, and no connection was free
    client_cpu_s: float = 0.0
    lags_s: list[float] = field(default_factory=list)  # how late the open loop's own event loop came to send

    @property
    def images_per_second(self) -> float:
        """After a ramp, of the whole stretch: as much is under way at its beginning as at its end.

        Else up to the last answer in time: what is under way at the end would count for nothing otherwise.
        """
        took_s = self.seconds if self.has_ramp else self.last_in_time_s
        return self.in_time * self.images_per_request / took_s if self.in_time else 0.0

    @property
    def ends_at(self) -> float:
        return self.began_at + self.seconds

    @property
    def goodput(self) -> float:
        """Answers with status 200 per second, over the whole time."""
        return self.in_time / self.seconds

    @property
    def answered(self) -> int:
        return sum(map(len, self.latencies_s.values()))

    @property
    def errors(self) -> int:
        """Everything that was not answered 200."""
        return self.answered - len(self.latencies_s[OK]) + self.failures.total()

    @property
    def error_kinds(self) -> Counter[str]:
        """How many of each status but 200, and of each way that a connection broke."""
        refused = {str(status): len(values) for status, values in self.latencies_s.items() if status != OK and values}
        return self.failures + Counter(refused)

    def quantile_ms(self, share: float, status: int = OK) -> float:
        """NaN if there was no such answer."""
        return quantile(self.latencies_s[status], share) * 1000


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of `values` do not exceed; NaN of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def raw_request(path: str, picture: bytes) -> bytes:
    """A POST of the image itself."""
    return _request(path, "image/jpeg", picture)


def form_request(path: str, pictures: Sequence[bytes], *, field_name: str) -> bytes:
    """A POST of a form with the images."""
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{field_name}"; filename="{number}.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n".encode()
        + picture
        + b"\r\n"
        for number, picture in enumerate(pictures)
    ]
    body = b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode()
    return _request(path, f"multipart/form-data; boundary={_BOUNDARY}", body)


def _request(path: str, content_type: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nAccept: application/json\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def run(work: Coroutine[Any, Any, ValueT]) -> ValueT:
    """`work` on an event loop of its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


async def closed_loop(
    port: int,
    requests: Sequence[bytes],
    *,
    concurrency: int,
    seconds: float,
    images_per_request: int = 1,
    first: int = 0,
    ramp_s: float = 0.0,
) -> Tally:
    """Keeps `concurrency` requests under way for `seconds`, then waits for the last answers.

    first: which of `requests` is the first one, so that stretches need not begin alike.
    ramp_s: how long before the stretch. What is answered by then has a latency and is not in time.
    """
    tally = Tally(seconds=seconds, images_per_request=images_per_request, has_ramp=ramp_s > 0)
    following = itertools.cycle([*requests[first % len(requests) :], *requests[: first % len(requests)]])
    with _measured(tally):
        tally.began_at = time.perf_counter() + ramp_s
        await asyncio.gather(*(_ask_on(port, following, tally) for _ in range(concurrency)))
    return tally


async def _ask_on(port: int, requests: Iterator[bytes], tally: Tally) -> None:
    """One connection's part of the closed loop."""
    connection: _Connection | None = None
    while time.perf_counter() < tally.ends_at:
        try:
            if connection is None or connection.is_over:
                connection = await _connect(port)
            async with asyncio.timeout(_LAST_ANSWERS_WITHIN_S):
                answer = await connection.ask(next(requests))
        except (OSError, TimeoutError) as error:
            tally.failures[type(error).__name__] += 1
            _drop(connection)
            connection = None
            await asyncio.sleep(_PAUSE_AFTER_REFUSAL_S)
            continue
        _note(tally, answer)
        if answer.status != OK:
            await asyncio.sleep(_PAUSE_AFTER_REFUSAL_S)
    _drop(connection)


async def open_loop(
    port: int, requests: Sequence[bytes], *, requests_per_second: float, seconds: float, most_connections: int = 1024
) -> Tally:
    """Sends on time, whether the server keeps up or not, then waits for the last answers.

    What is due while all connections wait for an answer is counted as unsent.
    """
    tally = Tally(seconds=seconds)
    with _measured(tally):
        tally.began_at = time.perf_counter()
        sender = _Sender(port, requests, tally, most_connections=most_connections)
        sent = 0
        while (now := time.perf_counter()) < tally.ends_at:
            due = int((now - tally.began_at) * requests_per_second) - sent
            sent += due
            sender.send(due)
            sleeps_until = time.perf_counter() + _EVERY_S
            await asyncio.sleep(_EVERY_S)
            tally.lags_s.append(max(0.0, time.perf_counter() - sleeps_until))  # timers may be a millisecond early
        await sender.end()
    return tally


class _Sender:
    """The open loop's connections. None has a task: that would cost as much as the request."""

    def __init__(self, port: int, requests: Sequence[bytes], tally: Tally, *, most_connections: int) -> None:
        self._port = port
        self._following = itertools.cycle(requests)
        self._tally = tally
        self._most_connections = most_connections
        self._idle: deque[_Connection] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._under_way: dict[asyncio.Future[_Answer], _Connection] = {}

    def send(self, count: int) -> None:
        """So many requests, or as many as there may be connections for."""
        for number in range(count):
            while self._idle and self._idle[-1].is_over:  # the server closes what is idle for long
                _drop(self._idle.pop())
            if self._idle:
                self._ask(self._idle.pop())
            elif len(self._under_way) + len(self._connecting) < self._most_connections:
                task = asyncio.create_task(self._ask_on_another())
                self._connecting.add(task)
                task.add_done_callback(self._connecting.discard)
            else:
                self._tally.unsent += count - number
                return

    async def end(self) -> None:
        """Waits for the last answers."""
        if self._connecting:
            await asyncio.wait(self._connecting)
        if self._under_way:
            _, late = await asyncio.wait(list(self._under_way), timeout=_LAST_ANSWERS_WITHIN_S)
            for asked in late:
                asked.cancel()
            await asyncio.sleep(0)  # they are counted
        for connection in self._idle:
            _drop(connection)

    def _ask(self, connection: _Connection) -> None:
        asked = connection.ask(next(self._following))
        self._under_way[asked] = connection
        asked.add_done_callback(self._note)

    async def _ask_on_another(self) -> None:
        try:
            self._ask(await _connect(self._port))
        except OSError as error:
            self._tally.failures[type(error).__name__] += 1

    def _note(self, asked: asyncio.Future[_Answer]) -> None:
        connection = self._under_way.pop(asked)
        error = TimeoutError() if asked.cancelled() else asked.exception()
        if error is not None:
            self._tally.failures[type(error).__name__] += 1
            _drop(connection)
            return
        _note(self._tally, asked.result())
        if not connection.is_over:
            self._idle.append(connection)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
    status: int
    latency_s: float
    says_when: bool  # it has Retry-After


class _Connection(asyncio.Protocol):
    """One request at a time. Raises ConnectionError from `ask` if the server goes before it has answered."""

    def __init__(self) -> None:
        self._is_over = False
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[_Answer] | None = None
        self._received = bytearray()
        self._is_complete: Callable[[], bool] | None = None
        self._began_at = 0.0

    def ask(self, request: bytes) -> asyncio.Future[_Answer]:
        assert self._transport is not None
        self._waiting = asyncio.get_running_loop().create_future()
        self._received.clear()
        self._is_complete = None
        self._began_at = time.perf_counter()
        self._transport.write(request)
        return self._waiting

    @property
    def is_over(self) -> bool:
        """Whether no request can go over it any more."""
        return self._is_over or (self._transport is not None and self._transport.is_closing())

    def close(self) -> None:
        self._is_over = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its class

    def connection_lost(self, error: Exception | None) -> None:
        self._is_over = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionResetError(str(error or "closed before the answer")))

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._is_complete is None:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            self._is_complete = self._completion(end)
        if self._is_complete() and self._waiting is not None and not self._waiting.done():
            elapsed_s = time.perf_counter() - self._began_at
            end = self._received.find(b"\r\n\r\n")
            answer = _Answer(
                status=int(self._received[9:12]),
                latency_s=elapsed_s,
                says_when=b"\r\nretry-after:" in self._received[:end].lower(),
            )
            self._waiting.set_result(answer)

    def _completion(self, end: int) -> Callable[[], bool]:
        """What tells that the answer, whose head ends at `end`, is whole."""
        head = bytes(self._received[:end]).lower()
        if b"\r\nconnection: close" in head:
            self._is_over = True
        if b"\r\ntransfer-encoding: chunked" in head:
            return lambda: self._received.endswith(b"0\r\n\r\n")
        _, _, after = head.partition(b"\r\ncontent-length:")
        whole = end + 4 + int(after.partition(b"\r\n")[0] or 0)
        return lambda: len(self._received) >= whole


async def _connect(port: int) -> _Connection:
    _, connection = await asyncio.get_running_loop().create_connection(_Connection, HOST, port)
    return connection


def _drop(connection: _Connection | None) -> None:
    if connection is not None:
        connection.close()


def _note(tally: Tally, answer: _Answer) -> None:
    tally.latencies_s[answer.status].append(answer.latency_s)
    now = time.perf_counter()
    if answer.status == OK and tally.began_at <= now <= tally.ends_at:
        tally.in_time += 1
        tally.last_in_time_s = now - tally.began_at
    tally.bare_refusals += answer.status == UNAVAILABLE and not answer.says_when


@contextmanager
def _measured(tally: Tally) -> Iterator[None]:
    """Counts this process' CPU time, and keeps the garbage collector out."""
    gc.collect()
    gc.disable()
    cpu_s = time.process_time()
    try:
        yield
    finally:
        tally.client_cpu_s = time.process_time() - cpu_s
        gc.enable()
