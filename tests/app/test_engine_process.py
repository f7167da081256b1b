"""The engine in a process of its own: the same answers, shared batches, and nobody hangs when either end dies."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from app.engine_setup import make_engine
from app.inference.answers import ImageAnswer
from app.inference.engine import Engine
from app.inference.engine_process.arena import Arena
from app.inference.engine_process.connection import EngineConnection
from app.inference.engine_process.greeting import exchange_arenas
from app.inference.engine_process.remote_lane import RemoteLane
from app.inference.engine_process.remote_models import RemoteModels
from app.inference.engine_process.server import EngineServer
from app.inference.errors import EngineFull, EngineRestarting
from app.inference.lane import Lane
from app.inference.loaded_models import EXACT, LoadedModels
from app.inference.model_source import ModelFinder
from app.local_stack.engine_process import EngineProcess, is_own_engine_wanted
from app.local_stack.errors import ChildDied
from app.local_stack.stack import code_environment
from app.settings import ApiSettings
from models.architectures import catalog
from models.backends.eager import EagerBackend
from models.backends.graphs import ClassificationGraph
from models.errors import UnknownModel
from models.predictor import Predictor
from models.predictors.classification import Classifier, ClassSelection
from models.predictors.detection import DetectionSelection
from models.predictors.segmentation import SegmentationSelection, Segmenter
from models.registry import Registry
from tests.app import pictures
from tests.app.compass import publish_compass
from tests.app.finders import finders_from_version, png, publish_finders
from tests.app.running_api import running_api
from tests.cli.processes import running_below
from tests.redis_server import free_port
from tests.waiting import wait_until

VIEW = torch.arange(28 * 28, dtype=torch.int64).to(torch.uint8).view(1, 28, 28)
SCENE = png(300, 200, ("red", 20, 30, 90, 110), ("blue", 150, 20, 280, 180))
ALL = ClassSelection()
PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the models of `finders.py`."""
    home = tmp_path_factory.mktemp("engine")
    publish_finders(Registry(home / "registry"))
    return home


@pytest.fixture(scope="module")
def engine_process(home: Path) -> Iterator[EngineProcess]:
    """One that stays up for all tests that do not kill it."""
    program = [sys.executable, "-m", "tests.app.finders_engine"]
    with Loop() as loop:
        process = EngineProcess(settings_of(home), program=program)
        loop.run(process.start())
        yield process
        loop.run(process.stop())


class Loop:
    """An event loop in a thread of its own."""

    def __enter__(self) -> Loop:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        return self

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


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
        known = frozenset(catalog.names())
        finder = ModelFinder(
            Registry(home / "registry", reserved_names=known),
            architectures=known,
            weights_dir=home / "weights",
            allow_download=False,
            device=torch.device("cpu"),
        )
        models, lane = LoadedModels(finder, budget_bytes=10**9), Lane()
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
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("model", "image", "selection"),
    [
        ("compass", pictures.png(), ALL),
        ("boxes", SCENE, DetectionSelection()),
        ("masks", SCENE, DetectionSelection()),
        ("masks", SCENE, DetectionSelection(masks="polygon", tile_px=150, categories=frozenset({"red"}))),
        ("points", SCENE, DetectionSelection(masks="none")),
        ("painter", SCENE, SegmentationSelection()),
        ("painter", png(4000, 700, ("red", 100, 100, 2500, 600)), SegmentationSelection(masks="png")),
        ("masks", png(600, 400), DetectionSelection()),
    ],
)
def test_answers_are_those_of_an_engine_in_the_same_process(
    engine_process: EngineProcess,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    image: bytes,
    selection: Any,
) -> None:
    async def work() -> None:
        async with engine_at(engine_process.path, home) as engine, local_engine(home) as here:
            there = await engine.predict(model, [image, b"nothing"], selection, timeout_s=60)
            expected = await here.predict(model, [image, b"nothing"], selection, timeout_s=60)
            assert isinstance(there.images[0], ImageAnswer)
            assert there.images[0] == expected.images[0]
            assert type(there.images[1]) is type(expected.images[1])
            assert (there.backend, there.precision) == (expected.backend, expected.precision)
            assert there.model == replace(expected.model, load=there.model.load)

    monkeypatch.setattr(Predictor, "from_version", finders_from_version())
    asyncio.run(work())


def test_pictures_of_many_tiles_take_their_memory_and_give_it_back(engine_process: EngineProcess, home: Path) -> None:
    async def work() -> None:
        async with engine_at(engine_process.path, home) as engine:
            large = png(1600, 1200, ("red", 100, 100, 700, 900))
            selection = DetectionSelection(tile_px=400, tile_overlap=0.0)
            answers = await asyncio.gather(
                *(engine.predict("masks", [large], selection, timeout_s=60) for _ in range(3))
            )
            for answer in answers:
                assert isinstance(answer.images[0], ImageAnswer)
                assert len(answer.images[0].prediction) == 1
            arena = engine._lane._connection.arena  # type: ignore[attr-defined]
            await until(lambda: arena.used_bytes == 0)
            assert engine.pending_images == 0

    asyncio.run(work())


def test_models_are_seen_as_the_engine_process_has_them(engine_process: EngineProcess, home: Path) -> None:
    async def work() -> None:
        async with engine_at(engine_process.path, home) as one, engine_at(engine_process.path, home) as other:
            await one.models.load("compass")
            await until(lambda: "compass/1" in [model.source.reference for model in other.models.all()])
            assert one.models.size_bytes > 0
            assert one.models.budget_bytes > 0
            assert await other.models.unload("compass")
            assert not await one.models.unload("compass")
            await until(lambda: "compass/1" not in [model.source.reference for model in one.models.all()])
            with pytest.raises(UnknownModel):
                await one.models.get("nothing")
            await one.predict("compass", [pictures.png()], ALL, timeout_s=60)

    asyncio.run(work())


def test_promoted_version_answers_everywhere(engine_process: EngineProcess, home: Path) -> None:
    registry = Registry(home / "registry")
    publish_compass(registry, "moving")
    registry.set_alias("moving", "production", 1)

    async def work() -> None:
        async with engine_at(engine_process.path, home) as one, engine_at(engine_process.path, home) as other:

            async def version_that_answers(engine: Engine) -> int | None:
                return (await engine.predict("moving", [pictures.png()], ALL, timeout_s=60)).model.version

            assert [await version_that_answers(engine) for engine in (one, other)] == [1, 1]
            publish_compass(registry, "moving", gain=-2.0)
            await one.models.load_beside("moving", 2)
            registry.set_alias("moving", "production", 2)
            one.models.forget_lookups()
            assert await version_that_answers(one) == 2
            async with asyncio.timeout(60):
                while await version_that_answers(other) != 2:
                    pass

    asyncio.run(work())


def test_views_of_two_processes_share_a_batch_and_interactive_ones_go_first(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    original = Classifier.predict_prepared

    def noted(predictor: Classifier, batch: torch.Tensor, selections: Sequence[ClassSelection]) -> list[torch.Tensor]:
        sizes.append(len(batch))
        return original(predictor, batch, selections)

    monkeypatch.setattr(Classifier, "predict_prepared", noted)

    async def work(served: Served) -> None:
        async with served.client() as (models, lane), served.client() as (others_models, others_lane):
            model, others_model = await models.get("compass"), await others_models.get("compass")
            served.models.all()[0].best_batch = 2
            release = served.hold()
            bulk = [lane.submit(model, VIEW, ALL, "bulk") for _ in range(3)]
            await until(lambda: served.lane.waiting == 3)
            interactive = others_lane.submit(others_model, VIEW, ALL, "interactive")
            await until(lambda: served.lane.waiting == 4)
            release()
            first = await interactive
            ran = await asyncio.gather(*bulk)
            assert sizes == [2, 2]
            assert first.inference_s == ran[0].inference_s  # of the same batch
            assert all(torch.equal(first.output, one.output) for one in ran)

    with_served(home, work)


def test_who_stops_waiting_frees_the_place_there_and_the_memory_here(home: Path) -> None:
    async def work(served: Served) -> None:
        async with served.client() as (models, lane):
            model = await models.get("compass")
            release = served.hold()
            waiting = [lane.submit(model, VIEW, ALL, "interactive") for _ in range(3)]
            await until(lambda: served.lane.waiting == 3)
            waiting[0].cancel()
            await until(lambda: served.lane.waiting == 2)
            arena = lane._connection.arena
            await until(lambda: arena.used_bytes == 2 * 832)
            release()
            await asyncio.gather(*waiting[1:])
            assert arena.used_bytes == 0
            assert lane.waiting == 0

    with_served(home, work)


def test_full_memory_is_refused_and_used_again(home: Path) -> None:
    async def work(served: Served) -> None:
        async with served.client(arena_bytes=4096) as (models, lane):
            model = await models.get("compass")
            release = served.hold()
            waiting = [lane.submit(model, VIEW, ALL, "interactive") for _ in range(4)]
            with pytest.raises(EngineFull) as refused:
                lane.submit(model, VIEW, ALL, "interactive")
            assert refused.value.retry_after_s == 1
            release()
            await asyncio.gather(*waiting)
            await lane.submit(model, VIEW, ALL, "interactive")

    with_served(home, work)


def test_model_that_left_before_its_view_came_is_loaded_again(home: Path) -> None:
    async def work(served: Served) -> None:
        async with served.client() as (models, lane):
            model = await models.get("compass")
            await served.models.unload("compass")
            await until(lambda: not models.all())
            await lane.submit(model, VIEW, ALL, "interactive")
            assert [one.source.reference for one in models.all()] == ["compass/1"]

    with_served(home, work)


def test_who_insists_on_float32_gets_it_also_when_the_model_left_meanwhile(home: Path) -> None:
    async def work(served: Served) -> None:
        async with served.client() as (models, lane):
            await models.get("compass")
            (loaded,) = served.models.all()
            graph = ClassificationGraph(deepcopy(loaded.predictor.module), loaded.predictor.preset)
            served.models.adopt(loaded, EagerBackend(graph, "cpu", "bfloat16"))
            model, exact = await models.get("compass"), await models.get("compass", "float32")
            await until(lambda: len(models.all()) == 2)
            assert [one.predictor.backend.precision for one in (model, exact)] == ["bfloat16", "float32"]
            ran = [await lane.submit(one, VIEW, ALL, "interactive") for one in (model, exact)]
            assert [one.precision for one in ran] == ["bfloat16", "float32"]
            served.models._drop(served.models.all()[1])
            again = await lane.submit(exact, VIEW, ALL, "interactive")
            assert again.precision == "float32"

    with_served(home, work)


def test_error_of_the_network_is_said_where_the_view_came_from(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> list[torch.Tensor]:
        msg = "no such kernel"
        raise RuntimeError(msg)

    async def work(served: Served) -> None:
        async with served.client() as (models, lane):
            model = await models.get("compass")
            monkeypatch.setattr(Classifier, "predict_prepared", broken)
            with pytest.raises(RuntimeError, match="no such kernel"):
                await lane.submit(model, VIEW, ALL, "interactive")

    with_served(home, work)


def test_large_outputs_are_not_made_faster_than_they_are_finished(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Predictor, "from_version", finders_from_version())

    async def work(served: Served) -> None:
        async with served.client(arena_bytes=2**22) as (models, lane):
            model = await models.get("painter")
            view = torch.zeros(3, 160, 200, dtype=torch.uint8)
            served.models.all()[0].best_batch = 1
            waiting = [lane.submit(model, view, SegmentationSelection(), "interactive") for _ in range(6)]
            await until(lambda: sum(one.done() for one in waiting) == 4)
            assert served.lane.waiting == 2
            lane.finished(model, 2)
            ran = await asyncio.gather(*waiting)
            (session,) = served.server._sessions
            assert session._outputs.used_bytes > 0  # 384,000 bytes each: two lie there, the others came by the socket
            assert len({one.output.sum().item() for one in ran}) == 1
            waiting.clear()
            ran.clear()
            await until(lambda: session._outputs.used_bytes == 0)
        await until(lambda: not served.server._sessions)
        assert served.lane._unfinished == 0

    with_served(home, work)


def test_outputs_of_a_model_that_left_and_came_back_are_finished_one_for_one(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Predictor, "from_version", finders_from_version())

    async def work(served: Served) -> None:
        async with served.client() as (models, lane):
            model = await models.get("painter")
            view = torch.zeros(3, 160, 200, dtype=torch.uint8)
            await lane.submit(model, view, SegmentationSelection(), "interactive")
            first = weakref.ref(served.models.all()[0])
            await served.models.unload("painter")
            await lane.submit(model, view, SegmentationSelection(), "interactive")
            assert first() is not served.models.all()[0]
            assert served.lane._unfinished == 2
            lane.finished(model, 2)
            await until(lambda: served.lane._unfinished == 0)
            (session,) = served.server._sessions
            assert not session._held
            lane.finished(model, 1)  # of an output that the engine before this one made
            await lane.submit(model, view, SegmentationSelection(), "interactive")
            assert served.lane._unfinished == 1
        await until(lambda: not served.server._sessions)
        assert served.lane._unfinished == 0

    with_served(home, work)


def test_outputs_of_a_model_that_is_another_than_was_asked_for_are_finished(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Predictor, "from_version", finders_from_version())

    async def work(served: Served) -> None:
        async with served.client() as (models, lane):
            model = await models.get("painter")
            model.source = replace(model.source, digest=f"{model.source.digest}{EXACT}")  # the one in memory does
            view = torch.zeros(3, 160, 200, dtype=torch.uint8)
            await lane.submit(model, view, SegmentationSelection(), "interactive")
            assert [one.source.digest.endswith(EXACT) for one in served.models.all()] == [False]
            lane.finished(model, 1)
            await until(lambda: served.lane._unfinished == 0)

    with_served(home, work)


@pytest.mark.parametrize("output", [object(), torch.zeros(2, device="meta")], ids=["no form", "no bytes"])
def test_output_that_cannot_be_sent_is_an_error_and_the_lane_goes_on(
    home: Path, monkeypatch: pytest.MonkeyPatch, output: object
) -> None:
    monkeypatch.setattr(Predictor, "from_version", finders_from_version())

    async def work(served: Served) -> None:
        async with served.client() as (models, lane):
            model = await models.get("painter")
            view = torch.zeros(3, 160, 200, dtype=torch.uint8)
            with monkeypatch.context() as broken:
                broken.setattr(Segmenter, "predict_prepared", lambda _, batch, __: [output] * len(batch))
                for _ in range(5):
                    with pytest.raises(RuntimeError, match="In the engine process"):
                        await lane.submit(model, view, SegmentationSelection(), "interactive")
            assert served.lane._unfinished == 0
            await lane.submit(model, view, SegmentationSelection(), "interactive")

    with_served(home, work)


def test_http_process_that_is_killed_leaves_nothing_behind(home: Path) -> None:
    async def work(served: Served) -> None:
        served.hold()
        client = await asyncio.to_thread(
            subprocess.Popen,
            [sys.executable, "-m", "tests.app.engine_client", str(served.path), "5"],
            env=code_environment(),
        )
        try:
            await until(lambda: served.lane.waiting == 5)
        finally:
            client.kill()
            await asyncio.to_thread(client.wait)
        await until(lambda: served.lane.waiting == 0)
        assert not served.server._sessions

    with_served(home, work)


def test_view_whose_engine_dies_twice_is_refused_and_the_others_go_on(home: Path) -> None:
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
        path = home / "dying"
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
        opening = asyncio.create_task(connection.open(timeout_s=5))
        await asyncio.sleep(0)
        with pytest.raises(EngineRestarting):
            await connection.ask({"do": "get", "reference": "compass"}, lambda *_: None)
        with pytest.raises(EngineRestarting):
            await connection.ask({"do": "get", "reference": "compass"}, lambda *_: None)
        opening.cancel()
        connection.close()
        with pytest.raises(EngineRestarting, match="nothing"):
            await EngineConnection(tmp_path / "nothing", arena_bytes=4096).open(timeout_s=0.01)

    asyncio.run(work())


def test_killed_engine_process_is_started_again_and_every_request_is_answered(tmp_path: Path, redis_url: str) -> None:
    settings = settings_of(tmp_path, redis_url=redis_url)
    publish_compass(Registry(tmp_path / "registry"))
    with running_api(settings) as api:
        first = api.classify(pictures.png())
        expected = first.json()["predictions"][0]["classes"][0]["label"]
        stop = threading.Event()

        def ask() -> list[int]:
            found = []
            while not stop.is_set():
                answer = api.classify(pictures.png())
                if answer.status_code == 200:
                    assert answer.json()["predictions"][0]["classes"][0]["label"] == expected
                else:
                    assert "Retry-After" in answer.headers
                found.append(answer.status_code)
            return found

        with ThreadPoolExecutor(8) as clients:
            asking = [clients.submit(ask) for _ in range(8)]
            try:
                killed = engine_process_below()
                os.kill(killed, signal.SIGKILL)
                wait_until(lambda: engine_process_below() not in (0, killed))
                wait_until(lambda: api.classify(pictures.png()).status_code == 200)
            finally:
                stop.set()
            statuses = [status for one in asking for status in one.result()]
        assert set(statuses) <= {200, 503}
        assert statuses.count(200) > len(asking)
        assert api.http.get("/readyz").json()["checks"]["engine"]["ok"]
    wait_until(lambda: not engine_process_below())


def engine_process_below() -> int:
    """The engine process that serves; 0 while there is none."""
    return next(iter(processes_below(os.getpid(), b"app.inference.engine_process")), 0)


def processes_below(ancestor: int, name: bytes) -> list[int]:
    """Those with `name` in their command line."""
    found = []
    for pid in running_below(ancestor):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            if name in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def test_servers_of_one_port_share_one_engine_process(tmp_path: Path, redis_url: str) -> None:
    publish_compass(Registry(tmp_path / "registry"))
    port = free_port()
    flags = {"processes": 2, "engine": "process", "port": port, "home": tmp_path, "device": "cpu"}
    serving = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "serve", *(f"--{name}={value}" for name, value in flags.items())],
        env={**code_environment(), "FOVEA_REDIS_URL": redis_url},
    )
    url = f"http://127.0.0.1:{port}"
    seen: dict[str, list[str]] = {}  # of each server, by its start: the models in memory

    def look() -> bool:
        with suppress(httpx.TransportError):  # every request has a connection of its own
            system = httpx.get(f"{url}/v1/system", timeout=60, trust_env=False).json()
            loaded = [model["reference"] for model in system["engine"]["loaded_models"]]
            seen[system["started_at"]] = loaded
        return len(seen) == 2

    try:
        wait_until(look)
        asked = httpx.post(
            f"{url}/v1/classify?model=compass", content=pictures.png(), headers=PNG, timeout=60, trust_env=False
        )
        assert asked.status_code == 200
        wait_until(lambda: look() and list(seen.values()) == [["compass/1"], ["compass/1"]])
        assert len(processes_below(serving.pid, b"app.inference.engine_process")) == 1
    finally:
        below = running_below(serving.pid)
        serving.terminate()
        assert serving.wait(30) == 0
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
