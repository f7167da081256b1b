"""Several servers of one port are one server to whoever loads, unloads, and asks what was done."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tritonclient.utils import InferenceServerException

from app.engine import model_control
from app.engine.loaded_models import LoadedModel
from app.processes import siblings
from app.processes.siblings import Message, Siblings, forget_sibling
from models.errors import CorruptVersion
from models.store.registry import Registry
from tests.app import pictures
from tests.app.compass import publish_compass
from tests.app.conftest import StartApi
from tests.app.engine_processes import processes_below
from tests.app.exposed import Exposed
from tests.app.running_api import RunningApi
from tests.app.served_api import served_api
from tests.app.triton import client_of, files_input
from tests.waiting import wait_until


@pytest.fixture
def directory() -> Iterator[Path]:
    """Not below `tmp_path`: the paths of sockets are short."""
    with tempfile.TemporaryDirectory(prefix="fovea-", dir="/tmp") as made:
        yield Path(made)


@pytest.fixture
def two(start_api: StartApi, directory: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RunningApi, RunningApi]:
    """Two servers of one home that know of each other."""
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


def test_model_that_another_process_cannot_load_is_not_ready(
    two: tuple[RunningApi, RunningApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def damaged(reference: str) -> None:
        raise CorruptVersion(f"the weights of {reference} are damaged")

    monkeypatch.setattr(two[1].services.engine.models, "get", damaged)
    monkeypatch.setattr(two[1].services.engine.models, "failing_s", lambda: {"compass/1": 30.0})
    with client_of(two[0]) as first, client_of(two[1]) as second:
        with pytest.raises(InferenceServerException, match=r"Another process .* the weights of compass/1 are damaged"):
            first.load_model("compass")
        assert loaded(two[0]) == ["compass/1"]
        for client in (first, second):
            assert not client.is_model_ready("compass")
            (entry,) = client.get_model_repository_index()
            assert (entry["state"], entry["reason"]) == ("UNAVAILABLE", "it could not be loaded")


def test_models_are_loaded_at_the_same_time_and_nobody_waits_long_for_one_that_hangs(
    two: tuple[RunningApi, RunningApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (api.services.engine.models for api in two)
    loads, asked = (models.get for models in (first, second)), threading.Event()
    load = next(loads)

    async def hangs(reference: str) -> None:
        del reference
        asked.set()
        await asyncio.Event().wait()

    async def waits(reference: str) -> LoadedModel:
        await asyncio.to_thread(asked.wait, 60)  # for ever, were the other one told afterwards
        return await load(reference)

    monkeypatch.setattr(model_control, "_LEAST_MORE_S", 0.1)
    monkeypatch.setattr(first, "get", waits)
    monkeypatch.setattr(second, "get", hangs)
    answer = two[0].http.post("/v2/repository/models/compass/load", timeout=20)
    assert answer.status_code == 200
    assert asked.is_set()
    assert loaded(two[0]) == ["compass/1"]


def test_one_that_starts_later_knows_what_was_unloaded(two: tuple[RunningApi, RunningApi], start_api: StartApi) -> None:
    two[0].http.post("/v2/repository/models/compass/unload").raise_for_status()
    with client_of(start_api()) as third, client_of(two[0]) as first:
        assert not third.is_model_ready("compass")
        assert not first.is_model_ready("compass")
        ask(third)
        assert first.is_model_ready("compass")


def test_model_that_was_unloaded_while_it_answered_stays_unloaded(two: tuple[RunningApi, RunningApi]) -> None:
    two[0].http.post("/v2/repository/models/compass/unload").raise_for_status()
    control = two[0].services.model_control
    control.note_use("compass/1")
    assert two[1].http.get("/v2/models/compass/ready").status_code == 400
    assert two[0].classify(pictures.png()).status_code == 200
    assert two[1].http.get("/v2/models/compass/ready").status_code == 200


def test_one_that_is_gone_is_not_missed(
    two: tuple[RunningApi, RunningApi], directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:  # of one that was killed
        listener.bind(str(directory / "7-1.socket"))
    two[0].http.post("/v2/repository/models/compass/unload").raise_for_status()
    assert two[0].http.get("/v2/models/stats").json() == {"model_stats": []}
    assert [line for line in caplog.records if line.levelno >= logging.WARNING] == []


def test_servers_leave_nothing_behind(directory: Path) -> None:
    seen: list[int] = []

    async def counting(message: Message) -> Message:
        seen.append(count(directory))
        return message

    async def answered() -> list[Any]:
        one, other = Siblings(directory), Siblings(directory)
        async with one.listen(counting), other.listen(counting):
            return await one.tell({"hello": [1, 2]}, timeout_s=20)

    assert asyncio.run(answered()) == [{"hello": [1, 2]}]
    assert (seen, count(directory)) == ([2], 0)
    for name in ("7-1.socket", "77-1.socket"):
        (directory / name).touch()
    forget_sibling(directory, 7)
    assert [path.name for path in directory.iterdir()] == ["77-1.socket"]


def count(directory: Path) -> int:
    return len(list(directory.iterdir()))


async def told(message: Message) -> Message:
    return message


def test_one_that_hangs_holds_nobody_up(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def hangs(message: Message) -> None:
        del message
        await asyncio.Event().wait()

    async def answered() -> list[Any]:
        asking, hanging, telling = (Siblings(directory) for _ in range(3))
        async with hanging.listen(hangs), telling.listen(told), asking.listen(told):
            return [
                await asking.look({"states": None}),
                await asking.look({"states": None}),
                await asking.tell({"unload": []}, timeout_s=0.2),
            ]

    assert asyncio.run(answered()) == [[{"states": None}], [{"states": None}], [{"unload": []}]]
    lines = [line.getMessage().partition(" did not answer ")[2] for line in caplog.records]
    assert len(lines) == 2, "the second look left it out"
    assert lines[0].endswith(" within 0.3 s")
    assert lines[1] == "{'unload': []} within 0.2 s"


def test_question_that_comes_late_is_not_answered(directory: Path) -> None:
    asked: list[Message] = []

    async def answer(message: Message) -> str:
        asked.append(message)
        return "yes"

    async def answered() -> list[Any]:
        asking, other = Siblings(directory), Siblings(directory)
        async with other.listen(answer):
            late = await asking.tell({"states": None, siblings._LATE_AT: time.monotonic() - 1}, timeout_s=20)
            return [late, await asking.tell({"unload": []}, timeout_s=20)]

    assert asyncio.run(answered()) == [[], ["yes"]]
    assert asked == [{"unload": []}]


def test_what_is_not_understood_is_not_answered(
    two: tuple[RunningApi, RunningApi], directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def asked() -> list[Any]:
        return await Siblings(directory).tell({"dance": 1}, timeout_s=20)

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
    assert asyncio.run(Siblings(None).look({"states": None})) == []


def test_processes_of_one_port_are_siblings(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / "a-long-name-of-a-directory-that-takes-what-a-path-of-a-socket-may-have"
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    publish_compass(Registry(tmp_path / "registry"))
    with served_api(tmp_path, redis_url, "--processes", "2") as api:
        wait_until(lambda: api.answers() and Exposed.of(api.http).value("fovea_processes") == 2, deadline_s=180)
        servers = processes_below(api.process.pid, b"app.cli")
        directory = directory_of(servers[0])

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

        assert len(list(directory.glob("*.socket"))) == 2
        os.kill(servers[0], signal.SIGKILL)
        wait_until(lambda: not list(directory.glob(f"{servers[0]}-*.socket")))
        wait_until(lambda: len(list(directory.glob("*.socket"))) == 2, deadline_s=180)
        wait_until(lambda: told("/v2/models/compass/ready") == {400}, deadline_s=60)
    assert not directory.exists()


def directory_of(pid: int) -> Path:
    """Where the sockets of a server and its siblings are."""
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    name = siblings.DIRECTORY_VARIABLE.encode() + b"="
    return Path(next(entry for entry in variables if entry.startswith(name)).removeprefix(name).decode())
