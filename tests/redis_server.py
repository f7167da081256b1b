"""A real redis-server on a free port for tests, which they can stop, empty and start again."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import redis

from app.processes.redis_server import find_redis_server
from tests import children
from tests.waiting import PATIENCE_S


def free_port() -> int:
    """A TCP port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(kw_only=True)
class RedisServer:
    """Private to one test session or one test; bound to loopback."""

    directory: Path
    port: int = field(default_factory=free_port)
    _process: children.Process | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Returns when it answers; its data are those it was stopped with."""
        self.directory.mkdir(parents=True, exist_ok=True)
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory), "--save", ""]
        command = [str(find_redis_server()), *options, "--appendonly", "yes", "--appendfsync", "always"]
        log = (self.directory / "redis.log").open("ab")
        with log:
            self._process = children.start(command, stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE_S
        with redis.Redis.from_url(self.url) as client:
            while True:
                try:
                    client.ping()
                except redis.ConnectionError:
                    if time.monotonic() > deadline or self._process.poll() is not None:
                        raise
                else:
                    return

    def stop(self) -> None:
        """Ends it at once, as a crash would."""
        if self._process is not None:
            children.end(self._process)
            self._process = None

    def lose_everything(self) -> None:
        """Deletes what it wrote; to be called while it is stopped."""
        shutil.rmtree(self.directory)


@contextmanager
def redis_server(directory: Path) -> Iterator[RedisServer]:
    """A server that runs until the end of the block at the latest."""
    server = RedisServer(directory=directory)
    try:
        server.start()
        yield server
    finally:
        server.stop()
