"""A server that answers from a script, for what a real one cannot be made to do: break off, be slow, be another."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx

from app.client import Client

Answer = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


class ScriptedServer:
    """Gives the answers in turn and keeps the requests."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = iter(answers)
        self.requests: list[httpx.Request] = []

    def client(self, *, retries: int = 2) -> Client:
        """A client that talks to it and does not wait between tries."""
        http = httpx.Client(base_url="http://fovea.test", transport=httpx.MockTransport(self._answer))
        return Client(http=http, retries=retries, sleep=lambda _: None)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else answer(request)


def problem(status: int, code: str, *, retry_after_s: float | None = None, **members: object) -> httpx.Response:
    """Problem details as the server words them."""
    body = {
        "type": f"urn:fovea:problem:{code}",
        "title": code,
        "status": status,
        "detail": f"It is {code}.",
        "instance": "/",
        "code": code,
        "request_id": "r-1",
        **members,
    }
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return httpx.Response(status, json=body, headers=headers)


class BrokenStream(httpx.SyncByteStream):
    """A body whose connection breaks after these pieces, if it says so."""

    def __init__(self, *pieces: str, breaks: bool) -> None:
        self._pieces = pieces
        self._breaks = breaks

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            yield piece.encode()
        if self._breaks:
            raise httpx.ReadError("connection reset")
