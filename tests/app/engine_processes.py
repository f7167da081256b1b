"""Engines with an engine process, and an engine process's end that a test has in its hands."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from app.engine.engine import Engine
from app.engine.lane import Lane
from app.engine.loaded_models import LoadedModels
from app.engine.remote.connection import EngineConnection
from app.engine.remote.remote_lane import RemoteLane
from app.engine.remote.remote_models import RemoteModels
from app.engine.remote.server import EngineServer
from app.engine.setup import make_engine
from app.settings import ApiSettings
from models.store.registry import Registry
from tests.app.engines import finder_of
from tests.cli.processes import running_below
from tests.waiting import PATIENCE_S


def settings_of(home: Path, **changes: Any) -> ApiSettings:
    values = {"home": home, "device": "cpu", "offline": True, "engine": "process", "backend": "eager"}
    return ApiSettings(_env_file=None, **{**values, **changes})


@asynccontextmanager
async def engine_at(path: Path, home: Path, **changes: Any) -> AsyncIterator[Engine]:
    """What an HTTP process has."""
    settings = settings_of(home, **changes)
    connection = EngineConnection(path, arena_bytes=2**24)
    engine, _ = make_engine(settings, Registry(home / "registry"), connection=connection, observers=())
    try:
        await connection.open()
        yield engine
    finally:
        await engine.close()


@asynccontextmanager
async def local_engine(home: Path) -> AsyncIterator[Engine]:
    """The same without an engine process."""
    engine, builds = make_engine(settings_of(home), Registry(home / "registry"), connection=None, observers=())
    assert builds is not None
    try:
        yield engine
    finally:
        await builds.close()
        await engine.close()


class Served:
    """An engine's end in this process, so that a test can hold its lane."""

    def __init__(self, path: Path, server: EngineServer, models: LoadedModels, lane: Lane) -> None:
        self.path = path
        self.server = server
        self.models = models
        self.lane = lane

    def hold(self) -> Callable[[], None]:
        """The device is busy until that is called."""
        self.lane._started_at = time.perf_counter()
        self.lane._is_busy = True

        def release() -> None:
            self.lane._is_busy = False
            self.lane._start()

        return release

    @asynccontextmanager
    async def client(self, *, arena_bytes: int = 2**20) -> AsyncIterator[tuple[RemoteModels, RemoteLane]]:
        connection = EngineConnection(self.path, arena_bytes=arena_bytes)
        models = RemoteModels(connection, device=torch.device("cpu"))
        lane = RemoteLane(connection)
        await connection.open()
        try:
            yield models, lane
        finally:
            lane.close()


def with_served(home: Path, work: Callable[[Served], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        models, lane = LoadedModels(finder_of(home), budget_bytes=10**9), Lane()
        server = EngineServer(models, lane, arena_bytes=2**20)
        path = home / "s"
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            serving = asyncio.create_task(server.serve(listener))
            try:
                await work(Served(path, server, models, lane))
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)
                lane.close()
                await models.close()

    asyncio.run(run())


async def until(condition: Callable[[], Any]) -> None:
    """As wait_until, while the event loop goes on."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def engine_process_below() -> int:
    """The engine process that serves; 0 while there is none."""
    return next(iter(processes_below(os.getpid(), b"app.engine.remote")), 0)


def processes_below(ancestor: int, name: bytes) -> list[int]:
    """Those with `name` in their command line."""
    found = []
    for pid in running_below(ancestor):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            if name in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found
