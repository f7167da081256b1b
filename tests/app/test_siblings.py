"""Several servers of one port are one server to whoever loads, unloads, and asks what was done."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path
from typing import Any

import pytest

from app import siblings
from app.siblings import Message, Siblings, forget_sibling
from models.errors import CorruptVersion
from models.registry import Registry
from tests.app import pictures
from tests.app.compass import publish_compass
from tests.app.conftest import StartApi
from tests.app.exposed import Exposed
from tests.app.running_api import RunningApi
from tests.app.served_api import served_api
from tests.app.triton import client_of, files_input
from tests.waiting import wait_until


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def two(start_api: StartApi, directory: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RunningApi, RunningApi]:
    """Two servers of one home that know of each other."""
    directory.mkdir()
    monkeypatch.setenv(siblings.DIRECTORY_VARIABLE, str(directory))
    first, second = start_api(), start_api()
    publish_compass(first.services.registry)
    return first, second


def loaded(api: RunningApi) -> list[str]:
    return [model.source.reference for model in api.services.engine.models.all()]


def ask(client: Any, *, images: int = 1) -> None:
    client.infer("compass", [files_input(*[pictures.png()] * images)])


def test_what_is_unloaded_and_loaded_is_so_in_all(two: tuple[RunningApi, RunningApi]) -> None:
    with client_of(two[0]) as first, client_of(two[1]) as second:
        first.load_model("compass")
        assert [loaded(api) for api in two] == [["compass/1"], ["compass/1"]]
        second.unload_model("compass")
        assert [loaded(api) for api in two] == [[], []]
        for client in (first, second):
            assert not client.is_model_ready("compass")
            (entry,) = client.get_model_repository_index()
            assert (entry["state"], entry["reason"]) == ("UNAVAILABLE", "unloaded")
        assert two[0].http.get("/models/compass").json()[0]["workers"][0]["status"] == "UNLOADED"


def test_who_was_asked_again_after_an_unload_makes_it_ready_for_all(two: tuple[RunningApi, RunningApi]) -> None:
    with client_of(two[0]) as first, client_of(two[1]) as second:
        first.unload_model("compass")
        ask(second)
        assert [loaded(api) for api in two] == [[], ["compass/1"]]
        for client in (first, second):
            assert client.is_model_ready("compass")
            (entry,) = client.get_model_repository_index()
            assert (entry["state"], entry["reason"]) == ("READY", "")


def test_statistics_are_of_all(two: tuple[RunningApi, RunningApi]) -> None:
    with client_of(two[0]) as first, client_of(two[1]) as second:
        ask(first, images=2)
        ask(second)
        (found,), (same,) = (client.get_inference_statistics()["model_stats"] for client in (first, second))
        assert found == same == first.get_inference_statistics("compass", "1")["model_stats"][0]
    assert found["inference_count"] == 3
    assert found["last_inference"] > 0
    assert found["inference_stats"]["success"]["count"] == 2
    for part in ("queue", "compute_input", "compute_infer", "compute_output"):
        assert found["inference_stats"][part]["count"] == 3, part
    assert sum(entry["batch_size"] * entry["compute_infer"]["count"] for entry in found["batch_stats"]) == 3


def test_model_that_only_another_process_cannot_load_is_not_ready(
    two: tuple[RunningApi, RunningApi], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def damaged(reference: str) -> None:
        raise CorruptVersion(f"the weights of {reference} are damaged")

    monkeypatch.setattr(two[1].services.engine.models, "get", damaged)
    monkeypatch.setattr(two[1].services.engine.models, "failing_s", lambda: {"compass/1": 30.0})
    with client_of(two[0]) as first, client_of(two[1]) as second:
        first.load_model("compass")
        assert "could not answer {'load': 'compass/1'}; its own line says why" in caplog.text
        assert "the weights of compass/1 are damaged" in caplog.text
        assert second.is_model_ready("compass"), "the first one answers"
        first.unload_model("compass")
        ask(first)
        two[0].http.post("/v2/repository/models/compass/unload")
        assert not second.is_model_ready("compass")


def test_one_that_is_gone_is_not_missed(
    two: tuple[RunningApi, RunningApi], directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:  # of one that was killed
        listener.bind(str(directory / "7-1.socket"))
    two[0].http.post("/v2/repository/models/compass/unload").raise_for_status()
    assert two[0].http.get("/v2/models/stats").json() == {"model_stats": []}
    assert [line for line in caplog.records if line.levelno >= logging.WARNING] == []


def test_servers_leave_nothing_behind(directory: Path) -> None:
    directory.mkdir()
    seen: list[int] = []

    async def told(message: Message) -> Message:
        seen.append(count(directory))
        return message

    async def answered() -> list[Any]:
        one, other = Siblings(directory), Siblings(directory)
        async with one.listen(told), other.listen(told):
            return await one.ask({"hello": [1, 2]})

    assert asyncio.run(answered()) == [{"hello": [1, 2]}]
    assert (seen, count(directory)) == ([2], 0)
    for name in ("7-1.socket", "77-1.socket"):
        (directory / name).touch()
    forget_sibling(directory, 7)
    assert [path.name for path in directory.iterdir()] == ["77-1.socket"]


def count(directory: Path) -> int:
    return len(list(directory.iterdir()))


def test_one_that_hangs_holds_nobody_up(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory.mkdir()

    async def hangs(message: Message) -> None:
        del message
        await asyncio.Event().wait()

    async def told(message: Message) -> Message:
        return message

    async def answered() -> list[Any]:
        asking, hanging, telling = (Siblings(directory) for _ in range(3))
        async with hanging.listen(hangs), telling.listen(told), asking.listen(told):
            return await asking.ask({"states": None}, timeout_s=0.2)

    assert asyncio.run(answered()) == [{"states": None}]
    assert "did not answer {'states': None}: it took too long" in caplog.text


def test_what_is_not_understood_is_not_answered(
    two: tuple[RunningApi, RunningApi], directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def asked() -> list[Any]:
        return await Siblings(directory).ask({"dance": 1})

    assert asyncio.run(asked()) == []
    wait_until(lambda: "not understood: {'dance': 1}" in caplog.text)
    for path in directory.iterdir():
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(path))
            client.sendall(b"{no json")
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
    assert two[0].http.get("/v2/health/ready").status_code == 200


def test_server_whose_socket_has_no_place_serves_all_the_same(
    start_api: StartApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    long = tmp_path / ("long" * 30)
    long.mkdir()
    monkeypatch.setenv(siblings.DIRECTORY_VARIABLE, str(long))
    api = start_api()
    assert "the other servers of this port cannot ask this one: AF_UNIX path too long" in caplog.text
    assert api.http.get("/v2/models/stats").json() == {"model_stats": []}


def test_lone_server_asks_nobody() -> None:
    assert asyncio.run(Siblings(None).ask({"states": None})) == []


def test_processes_of_one_port_are_siblings(tmp_path: Path, redis_url: str) -> None:
    publish_compass(Registry(tmp_path / "registry"))
    with served_api(tmp_path, redis_url, "--processes", "2") as api:
        wait_until(lambda: api.answers() and Exposed.of(api.http).value("fovea_processes") == 2, deadline_s=180)

        def are_loaded(count: int) -> bool:
            return Exposed.of(api.http).value("fovea_loaded_models") == count

        def told(path: str, times: int = 16) -> set[int]:
            """The statuses of connections that reach both."""
            return {api.http.get(path).status_code for _ in range(times)}

        assert told("/v2/models/compass/ready") == {200}
        api.http.post("/v2/repository/models/compass/load").raise_for_status()
        wait_until(lambda: are_loaded(2))
        api.http.post("/v2/repository/models/compass/unload").raise_for_status()
        assert told("/v2/models/compass/ready") == {400}
        wait_until(lambda: are_loaded(0))
