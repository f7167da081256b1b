"""The replicas of one port are one server to a client that loads, unloads and counts models."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from app.engine import model_control
from app.engine.device_access import ModelMemory
from app.engine.errors import EngineRestarting, ModelLoading
from app.engine.model_control import ModelControl
from app.engine.replica_files import ReplicaFiles
from app.engine.statistics import Statistics
from app.processes import replicas
from app.processes.replicas import replicas_directory
from models.errors import ModelsError, UnknownVersion
from models.store.registry import Registry
from tests.app import pictures
from tests.app.compass import publish_compass
from tests.app.conftest import StartApi
from tests.app.engine_processes import processes_below
from tests.app.exposed import Exposed
from tests.app.running_api import RunningApi
from tests.app.served_api import served_api
from tests.app.triton import client_of, files_input
from tests.waiting import BRIEF_S, PATIENCE_S, wait_until


class Memory:
    """References instead of models."""

    def __init__(self) -> None:
        self.loaded: set[str] = set()
        self.failing: dict[str, float] = {}
        self.before_get: Callable[[], Awaitable[Any]] | None = None
        self.refuses_to_unload: Exception | None = None

    def all(self) -> list[Any]:
        return [SimpleNamespace(source=SimpleNamespace(reference=reference)) for reference in self.loaded]

    def failing_s(self) -> dict[str, float]:
        return self.failing

    async def get(self, reference: str) -> None:
        if self.before_get is not None:
            await self.before_get()
        self.loaded.add(reference)

    async def unload(self, reference: str) -> bool:
        if self.refuses_to_unload is not None:
            raise self.refuses_to_unload
        was_there = reference in self.loaded
        self.loaded.discard(reference)
        return was_there


class Replica:
    """A replica without HTTP and without models."""

    def __init__(self, directory: Path, number: int, *, timeout_s: float = 20.0) -> None:
        self.memory = Memory()
        self.control = ModelControl(
            cast("ModelMemory", self.memory),
            Statistics(now=lambda: datetime(2026, 11, 23, tzinfo=UTC)),
            ReplicaFiles(directory, str(number)),
            timeout_s=timeout_s,
        )

    async def is_unloaded(self, reference: str) -> bool:
        return reference in (await self.control.states()).unloaded


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The directory that the replicas of a test share."""
    made = tmp_path / "replicas"
    made.mkdir()
    return made


def markers(directory: Path) -> list[str]:
    return sorted(path.name.partition("~")[0] for path in directory.glob("unloaded/*"))


def test_replica_unloads_what_a_client_unloaded_through_another_one(directory: Path) -> None:
    async def work() -> None:
        one, other = Replica(directory, 0), Replica(directory, 1)
        one.memory.loaded = {"ants/1", "bees/2"}
        other.memory.loaded = {"ants/1", "bees/2", "resnet50"}
        await one.control.unload(["ants/1", "resnet50"])
        assert one.memory.loaded == {"bees/2"}
        assert await one.is_unloaded("ants/1")
        assert await other.is_unloaded("ants/1"), "it need not have looked"
        assert "ants/1" not in (await other.control.states()).loaded
        await other.control.look()
        assert other.memory.loaded == {"bees/2"}
        assert markers(directory) == ["ants%2F1", "resnet50"]

    asyncio.run(work())


def test_model_that_a_request_loads_again_is_ready_on_all(directory: Path) -> None:
    async def work() -> None:
        one, other = Replica(directory, 0), Replica(directory, 1)
        await one.control.unload(["ants/1"])
        await other.control.look()
        await other.memory.get("ants/1")
        assert not await other.is_unloaded("ants/1"), "it sees its own memory at once"
        assert await one.is_unloaded("ants/1")
        await other.control.look()
        assert not await one.is_unloaded("ants/1")
        assert markers(directory) == []

    asyncio.run(work())


def test_model_that_left_memory_for_lack_of_room_after_it_came_back_stays_ready(directory: Path) -> None:
    async def work() -> None:
        replica = Replica(directory, 0)
        await replica.control.unload(["ants/1"])
        await replica.memory.get("ants/1")
        await replica.control.look()
        replica.memory.loaded.clear()
        assert not await replica.is_unloaded("ants/1")

    asyncio.run(work())


def test_load_makes_a_model_ready_on_all_and_loads_it_in_one(directory: Path) -> None:
    async def work() -> None:
        one, other = Replica(directory, 0), Replica(directory, 1)
        other.memory.loaded = {"ants/1"}
        await one.control.unload(["ants/1"])
        await other.control.load("ants/1")  # before it has looked
        assert other.memory.loaded == {"ants/1"}
        await other.control.look()
        assert other.memory.loaded == {"ants/1"}, "the unload came first"
        assert one.memory.loaded == set()
        assert not await one.is_unloaded("ants/1")

    asyncio.run(work())


def test_unload_during_a_load_is_not_lost(directory: Path) -> None:
    async def work() -> None:
        one, other = Replica(directory, 0), Replica(directory, 1)
        await one.control.unload(["ants/1"])
        other.memory.before_get = lambda: one.control.unload(["ants/1"])
        await other.control.load("ants/1")
        assert await one.is_unloaded("ants/1")
        await other.control.look()
        assert other.memory.loaded == set()

    asyncio.run(work())


def test_second_unload_counts_while_the_marker_of_the_first_is_being_removed(directory: Path) -> None:
    async def work() -> None:
        one, other = Replica(directory, 0), Replica(directory, 1)
        await one.control.unload(["ants/1"])
        await other.control.look()
        await other.memory.get("ants/1")
        await one.control.unload(["ants/1"])
        await other.control.look()
        assert other.memory.loaded == set()
        assert await other.is_unloaded("ants/1")

    asyncio.run(work())


def test_load_that_takes_too_long_goes_on_and_leaves_the_model_unloaded_until_it_is_there(directory: Path) -> None:
    async def work() -> None:
        replica = Replica(directory, 0, timeout_s=BRIEF_S)
        await replica.control.unload(["ants/1"])
        replica.memory.before_get = asyncio.Event().wait
        with pytest.raises(ModelLoading, match="ants/1 is still being loaded"):
            await replica.control.load("ants/1")
        assert await replica.is_unloaded("ants/1")

    asyncio.run(work())


@pytest.mark.parametrize("error", [UnknownVersion("it was deleted"), EngineRestarting("the engine starts again")])
def test_model_that_cannot_be_unloaded_because_it_is_gone_does_not_stop_the_others(
    directory: Path, error: ModelsError | EngineRestarting
) -> None:
    async def work() -> None:
        replica = Replica(directory, 0)
        replica.memory.refuses_to_unload = error
        await replica.control.unload(["ants/1", "bees/1"])
        assert await replica.is_unloaded("ants/1")
        assert await replica.is_unloaded("bees/1")

    asyncio.run(work())


def test_version_that_one_replica_could_not_load_is_ready_on_none_until_it_may_be_tried_again(directory: Path) -> None:
    async def work() -> None:
        one, other = Replica(directory, 0), Replica(directory, 1)
        other.memory.failing = {"ants/1": 30.0, "bees/1": 0.0}
        await other.control.look()
        states = await one.control.states()
        assert states.failing == {"ants/1"}
        assert not states.answers("ants/1")
        assert states.answers("bees/1")

    asyncio.run(work())


def test_what_cannot_be_read_is_left_out_with_a_warning(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        one, other = Replica(directory, 0), Replica(directory, 1)
        other.memory.loaded = {"ants/1"}
        await other.control.look()
        (directory / "2.json").write_text("{no json")
        assert (await one.control.states()).loaded == {"ants/1"}
        assert await one.control.statistics() == {}

    asyncio.run(work())
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert "2.json" in caplog.text


def test_disk_that_fails_is_logged_once_and_tried_again(
    directory: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_control, "_LOOKS_EVERY_S", 0.0)
    tries = 0

    async def work() -> None:
        replica, has_gone_well = Replica(directory, 0), asyncio.Event()

        async def look() -> None:
            nonlocal tries
            tries += 1
            if tries <= 3:
                raise OSError(28, "No space left on device")
            has_gone_well.set()

        monkeypatch.setattr(replica.control, "look", look)
        keeping = asyncio.create_task(replica.control.keep_in_step())
        await asyncio.wait_for(has_gone_well.wait(), PATIENCE_S)
        keeping.cancel()

    asyncio.run(work())
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == [
        "[Errno 28] No space left on device"
    ]


def test_directory_of_replicas_goes_with_their_parent_and_what_a_killed_one_left_goes_with_the_next(
    tmp_path: Path,
) -> None:
    left = tmp_path / "tmp" / ".tmp-of-a-killed-parent"
    left.mkdir(parents=True)
    with replicas_directory(tmp_path) as one, replicas_directory(tmp_path) as other:
        assert one != other
        assert one.is_dir()
        assert not left.exists()
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.fixture
def start_replica(start_api: StartApi, directory: Path, monkeypatch: pytest.MonkeyPatch) -> StartApi:
    """Starts a server of one home that shares `directory` with those before it."""
    numbers = itertools.count()
    monkeypatch.setenv(replicas.REPLICAS_DIRECTORY, str(directory))

    def start(**changes: Any) -> RunningApi:
        monkeypatch.setenv(replicas.REPLICA, str(next(numbers)))
        return start_api(**changes)

    return start


@pytest.fixture
def two(start_replica: StartApi) -> tuple[RunningApi, RunningApi]:
    """Two replicas with one model in the registry."""
    first, second = start_replica(), start_replica()
    publish_compass(first.services.registry)
    return first, second


def loaded(api: RunningApi) -> list[str]:
    return [model.source.reference for model in api.services.engine.models.all()]


def ask(client: Any, *, images: int = 1) -> None:
    client.infer("compass", [files_input(*[pictures.png()] * images)])


def is_ready_after_asking(asked: Any, other: Any) -> bool:
    """Sends a request to `asked`, which sees an unload late, and returns whether `other` calls the model ready then."""
    ask(asked)
    return bool(other.is_model_ready("compass"))


def unload(api: RunningApi) -> None:
    api.http.post("/v2/repository/models/compass/unload").raise_for_status()


def test_what_is_unloaded_and_loaded_is_so_for_clients_of_both(two: tuple[RunningApi, RunningApi]) -> None:
    with client_of(two[0]) as first, client_of(two[1]) as second:
        first.load_model("compass")
        ask(second)
        assert [loaded(api) for api in two] == [["compass/1"], ["compass/1"]]
        second.unload_model("compass")
        for client in (first, second):
            assert not client.is_model_ready("compass")
            (entry,) = client.get_model_repository_index()
            assert (entry["state"], entry["reason"]) == ("UNAVAILABLE", "unloaded")
        assert two[0].http.get("/models/compass").json()[0]["workers"][0]["status"] == "UNLOADED"
        wait_until(lambda: [loaded(api) for api in two] == [[], []])
        first.load_model("compass")
        for client in (first, second):
            assert client.is_model_ready("compass")
        assert [loaded(api) for api in two] == [["compass/1"], []]


def test_prediction_after_an_unload_makes_the_model_ready_for_clients_of_both(
    two: tuple[RunningApi, RunningApi],
) -> None:
    with client_of(two[0]) as first, client_of(two[1]) as second:
        first.unload_model("compass")
        wait_until(lambda: is_ready_after_asking(second, first))
        wait_until(lambda: first.get_model_repository_index()[0]["reason"] == "")
        assert [loaded(api) for api in two] == [[], ["compass/1"]]


def test_statistics_are_those_of_both(two: tuple[RunningApi, RunningApi]) -> None:
    def told(client: Any) -> Any:
        return client.get_inference_statistics()["model_stats"]

    with client_of(two[0]) as first, client_of(two[1]) as second:
        ask(first, images=2)
        ask(second)
        wait_until(lambda: told(first) and told(first) == told(second) and told(first)[0]["inference_count"] == 3)
        (found,) = told(first)
        assert found == first.get_inference_statistics("compass", "1")["model_stats"][0]
    assert found["last_inference"] > 0
    assert found["inference_stats"]["success"]["count"] == 2
    for part in ("queue", "compute_input", "compute_infer", "compute_output"):
        assert found["inference_stats"][part]["count"] == 3, part
    assert sum(entry["batch_size"] * entry["compute_infer"]["count"] for entry in found["batch_stats"]) == 3


def test_model_that_another_replica_cannot_load_is_not_ready(
    two: tuple[RunningApi, RunningApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(two[1].services.engine.models, "failing_s", lambda: {"compass/1": 30.0})
    with client_of(two[0]) as first, client_of(two[1]) as second:
        wait_until(lambda: not first.is_model_ready("compass"))
        for client in (first, second):
            assert not client.is_model_ready("compass")
            (entry,) = client.get_model_repository_index()
            assert (entry["state"], entry["reason"]) == ("UNAVAILABLE", "it could not be loaded")


def test_replica_that_hangs_over_an_unload_holds_up_nobody(
    two: tuple[RunningApi, RunningApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs(reference: str) -> bool:
        await asyncio.Event().wait()
        return True

    monkeypatch.setattr(two[1].services.engine.models, "unload", hangs)
    unload(two[0])
    for api in two:
        assert api.http.get("/v2/models/compass/ready").status_code == 400
        assert api.http.get("/v2/models/stats").json() == {"model_stats": []}


@pytest.mark.parametrize("preload", [(), ("compass",), ("compass/1",)])
def test_replica_that_starts_later_leaves_unloaded_what_a_client_unloaded(
    two: tuple[RunningApi, RunningApi], start_replica: StartApi, preload: tuple[str, ...]
) -> None:
    unload(two[0])
    third = start_replica(preload=preload)
    wait_until(lambda: not third.services.preloading)
    with client_of(third) as late, client_of(two[0]) as first:
        assert loaded(third) == []
        assert not late.is_model_ready("compass")
        assert not first.is_model_ready("compass")
        wait_until(lambda: is_ready_after_asking(late, first))


def test_lone_servers_of_one_home_know_nothing_of_each_other(start_api: StartApi) -> None:
    one, other = start_api(), start_api()
    publish_compass(one.services.registry)
    unload(one)
    assert one.http.get("/v2/models/compass/ready").status_code == 400
    assert other.http.get("/v2/models/compass/ready").status_code == 200
    assert one.classify(pictures.png()).status_code == 200
    assert one.http.get("/v2/models/compass/ready").status_code == 200


def test_processes_of_one_port_are_replicas_until_all_of_them_are_started_again(tmp_path: Path, redis_url: str) -> None:
    publish_compass(Registry(tmp_path / "registry"))
    leftovers = tmp_path / "tmp"
    with served_api(tmp_path, redis_url, "--processes", "2") as api:
        wait_until(lambda: api.answers() and Exposed.of(api.http).value("fovea_processes") == 2)
        servers = processes_below(api.process.pid, b"app.cli")

        def told(times: int = 16) -> set[int]:
            """The statuses of connections that reach both."""
            return {api.http.get("/v2/models/compass/ready").status_code for _ in range(times)}

        assert told() == {200}
        api.http.post("/v2/repository/models/compass/load").raise_for_status()
        wait_until(lambda: Exposed.of(api.http).value("fovea_loaded_models") == 1)
        api.http.post("/v2/repository/models/compass/unload").raise_for_status()
        assert told() == {400}
        wait_until(lambda: Exposed.of(api.http).value("fovea_loaded_models") == 0)

        os.kill(servers[0], signal.SIGKILL)
        wait_until(lambda: not psutil.pid_exists(servers[0]))  # its parent knows, and its socket is closed
        wait_until(lambda: Exposed.of(api.http).value("fovea_processes") == 2)
        assert told() == {400}, "the one that was started again knows it"
        assert len(list(leftovers.glob(".tmp-*"))) == 1
    assert list(leftovers.glob(".tmp-*")) == []
    with served_api(tmp_path, redis_url, "--processes", "2") as api:
        wait_until(lambda: api.answers() and Exposed.of(api.http).value("fovea_processes") == 2)
        assert told() == {200}, "an unload ends with the server"
