"""The real API on a free port: uvicorn in a thread, a home of its own, a real Redis."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from app.http.protocol import BoundedHttpProtocol
from app.main import create_app
from app.services import Services
from app.settings import ApiSettings
from tests.redis_server import free_port
from tests.waiting import PATIENCE_S, wait_until


@dataclass(frozen=True, kw_only=True)
class RunningApi:
    """A server and a client of it."""

    app: FastAPI
    port: int
    http: httpx.Client

    @property
    def services(self) -> Services:
        services: Services = self.app.state.services
        return services

    @property
    def home(self) -> Path:
        return self.services.settings.home

    def classify(self, content: bytes, content_type: str = "image/png", **params: Any) -> httpx.Response:
        """Posts one image as the body, to the compass unless `model` says otherwise."""
        return self.http.post(
            "/v1/classify",
            params={"model": "compass", **params},
            content=content,
            headers={"Content-Type": content_type},
        )


@contextmanager
def running_api(settings: ApiSettings) -> Iterator[RunningApi]:
    """Yields when it answers; stopped at the end."""
    app = create_app(settings)
    port = free_port()
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        root_path=settings.root_path,
        http=BoundedHttpProtocol,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        assert thread.is_alive(), "the server did not start"
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, trust_env=False) as http:
            yield RunningApi(app=app, port=port, http=http)
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        assert not thread.is_alive(), "the server did not stop"
