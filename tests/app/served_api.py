"""`fovea serve` as a process of its own, for tests of what only processes show."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.redis_server import free_port
from tests.waiting import wait_until

PROJECT_DIR = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class ServedApi:
    """A process and a client of it."""

    process: subprocess.Popen[bytes]
    http: httpx.Client

    def answers(self) -> bool:
        assert self.process.poll() is None, "the server ended"
        try:
            return self.http.get("/healthz").status_code == 200
        except httpx.TransportError:
            return False


@contextmanager
def served_api(home: Path, redis_url: str, environment: Mapping[str, str]) -> Iterator[ServedApi]:
    """Started, but not waited for; killed at the end."""
    port = free_port()
    settings = {"FOVEA_HOME": str(home), "FOVEA_REDIS_URL": redis_url, "FOVEA_DEVICE": "cpu", "FOVEA_OFFLINE": "true"}
    with (home / f"serve-{port}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "serve", "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=PROJECT_DIR,
            env={**os.environ, **settings, **environment},
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as http:
            yield ServedApi(process=process, http=http)
    finally:
        process.kill()
        process.wait()


def wait_for(*apis: ServedApi) -> None:
    """Until all of them answer."""
    for api in apis:
        wait_until(api.answers, deadline_s=180)
