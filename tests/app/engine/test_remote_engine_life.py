"""An engine process starts, dies, hangs and comes back, and nobody hangs with it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path

import httpx
import pytest

from app.engine.answers import ImageAnswer
from app.engine.errors import EngineRestarting
from app.engine.remote.arena import Arena
from app.engine.remote.connection import EngineConnection
from app.engine.remote.greeting import exchange_arenas
from app.processes.engine_process import EngineProcess, is_own_engine_wanted
from app.processes.errors import ChildDied
from app.processes.pulse import Pulse, beat
from models.predictors.classification import ClassSelection
from models.store.registry import Registry
from tests import children
from tests.app import pictures
from tests.app.compass import publish_compass
from tests.app.engine_processes import engine_at, engine_process_below, processes_below, settings_of
from tests.app.running_api import running_api
from tests.cli.processes import running_below
from tests.redis_server import free_port
from tests.waiting import BRIEF_S, PATIENCE_S, wait_until
from workers.supervision.child_process import code_environment

PNG = {"Content-Type": "image/png"}


def test_view_whose_engine_dies_twice_is_refused_and_the_others_go_on(tmp_path: Path) -> None:
    connections = 0

    async def engine_that_dies(listener: socket.socket) -> None:
        nonlocal connections
        loop = asyncio.get_running_loop()
        while True:
            link, _ = await loop.sock_accept(listener)
            connections += 1
            link.setblocking(False)
            arena = Arena(4096)
            os.close(await exchange_arenas(link, arena.descriptor))
            arena.close()
            await loop.sock_recv(link, 1)
            link.close()

    async def work() -> None:
        path = tmp_path / "dying"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            listener.setblocking(False)
            dying = asyncio.create_task(engine_that_dies(listener))
            connection = EngineConnection(path, arena_bytes=4096)
            await connection.open()
            asked = connection.ask({"do": "get", "reference": "compass"}, lambda *_: None)
            with pytest.raises(EngineRestarting) as refused:
                await asked
            assert refused.value.retry_after_s == 2
            assert connections == 2
            connection.close()
            assert not connection.is_open
            dying.cancel()
            await asyncio.gather(dying, return_exceptions=True)

    asyncio.run(work())


def test_nobody_waits_long_for_an_engine_that_does_not_come(tmp_path: Path) -> None:
    async def work() -> None:
        connection = EngineConnection(tmp_path / "nothing", arena_bytes=4096, patience_s=0.1)
        opening = asyncio.create_task(connection.open(timeout_s=PATIENCE_S))
        await asyncio.sleep(0)
        with pytest.raises(EngineRestarting):
            await connection.ask({"do": "get", "reference": "compass"}, lambda *_: None)
        with pytest.raises(EngineRestarting):
            await connection.ask({"do": "get", "reference": "compass"}, lambda *_: None)
        opening.cancel()
        connection.close()
        with pytest.raises(EngineRestarting, match="nothing"):
            await EngineConnection(tmp_path / "nothing", arena_bytes=4096).open(timeout_s=BRIEF_S)

    asyncio.run(work())


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hangs"])
def test_engine_process_that_is_gone_is_started_again_and_every_request_is_answered(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch, blow: signal.Signals
) -> None:
    monkeypatch.setattr("app.processes.engine_process._LONGEST_SILENCE_S", 8)
    publish_compass(Registry(tmp_path / "registry"))
    with running_api(settings_of(tmp_path, redis_url=redis_url)) as api:
        expected = label_in(api.classify(pictures.png()))
        stop = threading.Event()

        def ask() -> list[int]:
            found = []
            while not stop.is_set():
                answer = api.classify(pictures.png())
                if answer.status_code == 200:
                    assert label_in(answer) == expected
                else:
                    assert "Retry-After" in answer.headers
                found.append(answer.status_code)
            return found

        with ThreadPoolExecutor(8) as clients:
            asking = [clients.submit(ask) for _ in range(8)]
            try:
                struck = engine_process_below()
                os.kill(struck, blow)
                wait_until(lambda: engine_process_below() not in (0, struck))
                wait_until(lambda: api.classify(pictures.png()).status_code == 200)
            finally:
                stop.set()
            statuses = [status for one in asking for status in one.result()]
        assert set(statuses) <= {200, 503}
        assert statuses.count(200) > len(asking)
        assert api.http.get("/readyz").json()["checks"]["engine"]["ok"]
    wait_until(lambda: not engine_process_below())


def label_in(answer: httpx.Response) -> str:
    label: str = answer.json()["predictions"][0]["classes"][0]["label"]
    return label


def test_engine_process_whose_batch_is_stuck_is_replaced_and_the_view_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.processes.engine_process._LONGEST_SILENCE_S", 3)
    publish_compass(Registry(tmp_path / "registry"))

    settings = settings_of(tmp_path, request_timeout_s=1)  # stuck after 2 s
    mark = tmp_path / "stuck"
    program = [sys.executable, "-m", "tests.app.stuck_engine", str(mark)]

    async def work() -> None:
        async with EngineProcess(settings, program=program) as it:
            first = it.pid
            async with engine_at(it.path, tmp_path) as engine:
                answer = await engine.predict("compass", [pictures.png()], ClassSelection(), timeout_s=PATIENCE_S)
                assert isinstance(answer.images[0], ImageAnswer)
                assert it.pid not in (None, first)
                assert engine.busy_s == 0

    asyncio.run(work())
    assert mark.exists()


def test_child_that_stops_after_its_first_beat_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.processes.pulse._EVERY_S", 0.001)

    async def work() -> None:
        pulse = Pulse()
        os.write(pulse.beating, b"!")
        await pulse.begins()
        assert await pulse.stops(first_within=10**9, missed=3) == 3
        pulse.close()

    asyncio.run(work())


def test_child_with_a_pulse_is_left_alone_and_one_without_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.processes.pulse._EVERY_S", 0.01)

    async def work() -> None:
        pulse, looks = Pulse(), count()
        beating = asyncio.create_task(beat(pulse.beating, lambda: next(looks) < 50))
        await pulse.begins()
        missed = await pulse.stops(first_within=1000, missed=30)
        assert missed == 30
        assert next(looks) >= 50
        beating.cancel()
        pulse.close()

    asyncio.run(work())


def test_servers_of_one_port_share_one_engine_process(tmp_path: Path, redis_url: str) -> None:
    publish_compass(Registry(tmp_path / "registry"))
    port = free_port()
    flags = {"processes": 2, "engine": "process", "port": port, "home": tmp_path, "device": "cpu"}
    command = [sys.executable, "-m", "app.cli", "serve", *(f"--{name}={value}" for name, value in flags.items())]
    url = f"http://127.0.0.1:{port}"
    seen: dict[str, list[str]] = {}  # of each server, by its start: the models in memory

    def look() -> bool:
        assert serving.poll() is None, "the servers ended"
        with suppress(httpx.TransportError):  # every request has a connection of its own
            system = httpx.get(f"{url}/v1/system", timeout=PATIENCE_S, trust_env=False).json()
            loaded = [model["reference"] for model in system["engine"]["loaded_models"]]
            seen[system["started_at"]] = loaded
        return len(seen) == 2

    with children.child(command, env={**code_environment(), "FOVEA_REDIS_URL": redis_url}) as serving:
        wait_until(look)
        asked = httpx.post(
            f"{url}/v1/classify?model=compass", content=pictures.png(), headers=PNG, timeout=PATIENCE_S, trust_env=False
        )
        assert asked.status_code == 200
        wait_until(lambda: look() and list(seen.values()) == [["compass/1"], ["compass/1"]])
        assert len(processes_below(serving.pid, b"app.engine.remote")) == 1
        below = running_below(serving.pid)
        serving.terminate()
        assert serving.wait(PATIENCE_S) == 0
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below))


def test_engine_process_that_does_not_start_is_an_error_at_once(tmp_path: Path) -> None:
    async def work() -> None:
        process = EngineProcess(settings_of(tmp_path), program=[sys.executable, "-c", "raise SystemExit(3)"])
        with pytest.raises(ChildDied, match="did not start"):
            await process.start()

    asyncio.run(work())


@pytest.mark.parametrize(
    ("engine", "processes", "device", "is_wanted"),
    [
        ("auto", 1, "cuda", False),
        ("auto", 2, "cpu", False),
        ("auto", 2, "cuda:1", True),
        ("thread", 2, "cuda", False),
        ("process", 1, "cpu", True),
    ],
)
def test_engine_process_is_for_gpus_that_several_servers_share_unless_asked_for(
    tmp_path: Path, engine: str, processes: int, device: str, is_wanted: bool
) -> None:
    settings = settings_of(tmp_path, engine=engine, processes=processes, device=device)
    assert is_own_engine_wanted(settings) == is_wanted
