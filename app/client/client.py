"""The client of one server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

import httpx

from app.client.bulk import MOST_IN_FLIGHT
from app.client.datasets import Datasets
from app.client.errors import ServerUnreachable
from app.client.jobs import Jobs
from app.client.models import Models
from app.client.pages import PAGE_LIMIT, items, segment
from app.client.predictions import Predictions
from app.client.transport import Call, Transport, parsed
from app.schemas.architectures import Architecture, ArchitectureDetails, ArchitecturePage
from app.schemas.health import Liveness, Readiness
from app.schemas.page import Page
from app.schemas.system import System

URL_HINT = "Write it as http://127.0.0.1:8000."


class Client(Predictions):
    """A client of a Fovea server: predictions are methods, everything else is grouped by resource.

    Do not share it between threads. Close it, or use it in a `with` block. Every method raises ClientError, see
    `app.client.errors`.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        timeout_s: float = 60.0,
        retries: int = 2,
        http: httpx.Client | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """timeout_s: longest silence of the server. retries: further tries of requests that may be repeated.

        http: used instead of a new httpx client, for another transport or your own headers.
        """
        super().__init__(Transport(http or _connection(base_url, timeout_s), retries=retries, sleep=sleep))
        self.datasets = Datasets(self._transport)
        self.jobs = Jobs(self._transport, sleep=sleep)
        self.models = Models(self._transport)
        self.architectures = Architectures(self._transport)

    def is_alive(self) -> bool:
        """Asks whether the server process answers."""
        return self._transport.answer(Call(method="GET", path="/healthz"), Liveness).status == "alive"

    def readiness(self) -> Readiness:
        """Asks whether the server is ready, and what it lacks."""
        return parsed(self._transport.look(Call(method="GET", path="/readyz")), Readiness)

    def system(self) -> System:
        """Versions, devices, memory, loaded models, queue, disk and limits of the server."""
        return self._transport.answer(Call(method="GET", path="/v1/system"), System)

    def close(self) -> None:
        """Closes the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Architectures:
    """`client.architectures`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def list(self) -> Iterator[Architecture]:
        """All architectures, fetched page by page."""
        return items(lambda after: self.page(after=after))

    def page(self, *, limit: int = PAGE_LIMIT, after: str | None = None) -> Page[Architecture]:
        """One page of architectures."""
        call = Call(method="GET", path="/v1/architectures", params={"limit": limit, "after": after})
        return self._transport.answer(call, ArchitecturePage)

    def get(self, name: str) -> ArchitectureDetails:
        """One architecture with its layers."""
        call = Call(method="GET", path=f"/v1/architectures/{segment(name)}")
        return self._transport.answer(call, ArchitectureDetails)


def _connection(base_url: str, timeout_s: float) -> httpx.Client:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise ServerUnreachable(f"{base_url!r} is not a valid server address ({error}).", hint=URL_HINT) from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ServerUnreachable(f"{base_url!r} is not a valid server address.", hint=URL_HINT)
    # A proxy from the environment cannot reach this machine's loopback.
    is_here = url.host in ("localhost", "127.0.0.1", "::1")
    timeout = httpx.Timeout(timeout_s, connect=min(timeout_s, 5.0))
    # httpx keeps 20 connections and closes the rest after each request.
    limits = httpx.Limits(max_connections=MOST_IN_FLIGHT, max_keepalive_connections=MOST_IN_FLIGHT)
    return httpx.Client(base_url=url, timeout=timeout, limits=limits, trust_env=not is_here)
