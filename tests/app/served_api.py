"""`fovea serve` as a process of its own, for tests of what only processes show."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests import children
from tests.redis_server import free_port
from tests.waiting import PATIENCE_S


@dataclass(frozen=True, kw_only=True)
class ServedApi:
    """A process and a client of it."""

    process: children.Process
    http: httpx.Client

    def answers(self) -> bool:
        assert self.process.poll() is None, "the server ended"
        try:
            return self.http.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def served_api(home: Path, redis_url: str, *flags: str) -> Iterator[ServedApi]:
    """Started with these flags, but not waited for; stopped at the end. Every call makes a connection of its own."""
    port = free_port()
    settings = {"FOVEA_HOME": str(home), "FOVEA_REDIS_URL": redis_url, "FOVEA_DEVICE": "cpu", "FOVEA_OFFLINE": "true"}
    command = [sys.executable, "-m", "app.cli", "serve", "--port", str(port), *flags]
    unkept = httpx.Limits(max_keepalive_connections=0)
    with (
        (home / f"serve-{port}.log").open("ab") as log,
        children.child(command, stdout=log, stderr=log, env={**os.environ, **settings}) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S, trust_env=False, limits=unkept) as http,
    ):
        yield ServedApi(process=process, http=http)
        process.terminate()
        process.wait(PATIENCE_S)
