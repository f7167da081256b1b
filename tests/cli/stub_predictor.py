"""A classifier on a real socket that says each image's own name, and fails when it is told to."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from app.processes.address import free_port
from tests.cli.answers import problem

MODEL = {"name": "namer", "version": 3, "architecture": "stub", "backend": "eager", "precision": "float32"}
LIMITS = {
    "max_body_bytes": 64_000,
    "max_image_bytes": 32_000,
    "max_image_pixels": 1_000_000,
    "max_images_per_request": 64,
    "max_upload_bytes": 1,
    "max_weights_bytes": 1,
    "request_timeout_s": 30.0,
}


class CutOff(Exception):
    """The connection is closed without an answer."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An answer that is an error."""

    status: int
    code: str
    retry_after_s: float | None = None
    is_from_proxy: bool = False  # a page that knows nothing of Fovea


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request for predictions."""

    names: list[str]
    params: dict[str, list[str]]
    priority: str | None
    connection: tuple[str, int]


Decision = Callable[[Asked], Refusal | None]  # may raise CutOff, or wait


@dataclass(kw_only=True)
class StubPredictor:
    """The server and what it was asked."""

    decide: Decision = lambda _: None
    port: int = field(default_factory=free_port)
    asked: list[Asked] = field(default_factory=list)
    _server: _Server | None = None
    _thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def answered(self) -> list[str]:
        """Names of all images asked about, as often as they were."""
        return [name for asked in self.asked for name in asked.names]

    def start(self) -> None:
        self._server = _Server(("127.0.0.1", self.port), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        """Closes the port and all connections, as a kill would."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.cut_connections()
            self._thread.join()
            self._server = None


@contextmanager
def stub_predictor(decide: Decision = lambda _: None) -> Iterator[StubPredictor]:
    """Runs one."""
    stub = StubPredictor(decide=decide)
    stub.start()
    try:
        yield stub
    finally:
        stub.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._connections: list[socket.socket] = []

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._connections.append(connection)
        return connection, address

    def cut_connections(self) -> None:
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: object) -> None:
        """A client that went, or was cut off."""


def _handler(stub: StubPredictor) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._answer(200, {"limits": LIMITS} if self.path == "/v1/system" else {"status": "alive"})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            names = [name.decode() for name in re.findall(rb'filename="([^"]*)"', body)]
            params = parse_qs(urlsplit(self.path).query)
            asked = Asked(
                names=names, params=params, priority=self.headers.get("X-Priority"), connection=self.client_address
            )
            try:
                refusal = stub.decide(asked)
            except CutOff:
                self.close_connection = True
                return
            if refusal is not None and refusal.is_from_proxy:
                self.send_error(refusal.status)
                return
            if refusal is not None:
                wanted = problem(refusal.status, refusal.code, retry_after_s=refusal.retry_after_s)
                self._answer(refusal.status, wanted.json(), wanted.headers.get("Retry-After"))
                return
            stub.asked.append(asked)
            predictions = [
                {"image": {"name": name, "width": 1, "height": 1}, "classes": [{"label": name, "index": 0, "score": 1}]}
                for name in names
            ]
            times = {"decode": 1, "queue": 1, "inference": 1}
            self._answer(200, {"model": MODEL, "predictions": predictions, "timing_ms": times})

        def _answer(self, status: int, document: Any, retry_after: str | None = None) -> None:
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            if retry_after is not None:
                self.send_header("Retry-After", retry_after)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    return Handler
