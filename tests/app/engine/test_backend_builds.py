"""Backends are built beside the server, once for all processes; one that goes wrong leaves everything as it was."""

from __future__ import annotations

import asyncio
import fcntl
import importlib.util
import logging
import os
import re
import subprocess
import sys
import weakref
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from app.engine.builds import backend_builds
from app.engine.builds.backend_builds import BackendBuilds, BuildLimits
from app.engine.loaded_models import LoadedModel, LoadedModels
from app.engine.model_source import ModelFinder
from models.architectures import catalog
from models.backends import choosing, machine
from models.backends.backend import Backend
from models.backends.choosing import Chosen, Policy
from models.backends.eager import EagerBackend
from models.backends.exports import Exports
from models.backends.openvino_int8 import OpenVinoInt8
from models.backends.report import ExportReport
from models.manifest import DatasetReference
from models.predictors.classification import ClassSelection
from models.store.registry import Registry
from tests import children
from tests.app import pictures
from tests.app.archives import image_folder_zip
from tests.app.compass import publish_compass
from tests.app.conftest import StartApi
from tests.app.running_api import RunningApi
from tests.builders import gradient_tensor
from tests.models.small_networks import StandIn, StandInOfIntegers
from tests.waiting import PATIENCE_S, wait_until
from workers.datasets.store import DatasetStore

# taken although it be slower: these networks take no time at all; float32 is the same on every processor
NAMED = Policy(backend="openvino", precision="float32")


class Server:
    """Part of an API process: its loaded models, and the backends that are built for them."""

    def __init__(self, home: Path, how: str | None, *, policy: Policy = NAMED, **limits: float) -> None:
        self.registry = Registry(home / "registry")
        self.ready: list[Backend] = []
        (home / "weights").mkdir(exist_ok=True)
        finder = ModelFinder(
            self.registry,
            architectures=frozenset(catalog.names()),
            weights_dir=home / "weights",
            allow_download=False,
            device=torch.device("cpu"),
        )
        self.models = LoadedModels(finder, budget_bytes=10**9)
        stand_in = {} if how is None else {"builder": (sys.executable, "-m", "tests.app.stand_in_builder", how)}
        self.builds = BackendBuilds(
            self.registry,
            DatasetStore(home / "datasets"),
            weights_dir=home / "weights",
            device=torch.device("cpu"),
            policy=policy,
            on_ready=self._swap,
            limits=BuildLimits(**limits),  # type: ignore[arg-type]
            **stand_in,
        )

    def _swap(self, loaded: LoadedModel, backend: Backend) -> None:
        loaded.predictor.backend = backend
        self.ready.append(backend)

    async def load(self, reference: str) -> LoadedModel:
        """The model, with what there is built for it."""
        loaded = await self.models.get(reference)
        self.builds.start(loaded)
        await self.builds.idle()
        return loaded


def with_server(work: Callable[[Server], Coroutine[Any, Any, None]], *args: Any, **options: Any) -> None:
    async def run() -> None:
        server = Server(*args, **options)
        try:
            await work(server)
        finally:
            await server.builds.close()
            await server.models.close()

    asyncio.run(run())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    """With a model, `one`, and one way to build it."""
    monkeypatch.setattr(choosing, "COMPILERS", (StandIn(),))
    publish_compass(Registry(tmp_path / "registry"), "one")
    return tmp_path


class Builders:
    """The processes that build: which were started, and a gate before them."""

    def __init__(self) -> None:
        self.built: list[str] = []  # references
        self.pids: list[int] = []
        self.has_asked = asyncio.Event()
        self.has_started = asyncio.Event()
        self.gate = asyncio.Event()
        self._start = asyncio.create_subprocess_exec

    async def start(self, *arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        given = dict(argument[2:].split("=", 1) for argument in arguments if argument.startswith("--"))
        self.built.append(f"{given['name']}/{given['version']}")
        self.has_asked.set()
        await self.gate.wait()
        process = await self._start(*arguments, **options)
        self.pids.append(process.pid)
        self.has_started.set()
        return process


@pytest.fixture
def builders(monkeypatch: pytest.MonkeyPatch) -> Builders:
    found = Builders()
    monkeypatch.setattr(asyncio, "create_subprocess_exec", found.start)
    return found


def report_of(home: Path) -> ExportReport:
    (report,) = Exports(home / "registry" / "one" / "1" / "exports").reports()
    return report


def answers(loaded: LoadedModel) -> list[tuple[str, float]]:
    (scores,) = loaded.predictor.predict([gradient_tensor()], ClassSelection())
    return [(score.label, round(score.score, 4)) for score in scores]


def test_model_is_swapped_when_its_backend_is_ready_and_built_once_for_all_processes(home: Path) -> None:
    async def work(first: Server) -> None:
        second = Server(home, "right")
        loaded = await first.models.get("one")
        before = answers(loaded)
        first.builds.start(loaded)
        first.builds.start(loaded)  # asked for again while it is built
        other = await second.models.get("one")
        second.builds.start(other)
        assert answers(loaded) == before  # meanwhile it serves
        await first.builds.idle()
        await second.builds.idle()
        for server, model in ((first, loaded), (second, other)):
            assert [backend.name for backend in server.ready] == ["openvino"]
            assert answers(model) == before
        report = report_of(home)
        assert report.status == "verified"
        assert report.agreement is not None
        assert report.agreement.source == "generated"
        built_at = report.created_at
        await second.builds.close()
        await second.models.close()

        restarted = Server(home, "crash")  # it would fail, were it asked to build
        assert answers(await restarted.load("one")) == before
        assert [backend.name for backend in restarted.ready] == ["openvino"]
        assert report_of(home).created_at == built_at

    with_server(work, home, "right")


def test_wrong_network_is_refused_and_not_built_again(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work(server: Server) -> None:
        await server.load("one")
        assert server.ready == []
        assert report_of(home).status == "refused"
        assert "differs from eager float32" in caplog.text
        caplog.clear()
        await Server(home, "crash").load("one")
        assert caplog.text == ""

    with_server(work, home, "wrong")


@pytest.mark.parametrize(
    ("how", "limits", "reason"),
    [
        ("crash", {}, "it was killed by SIGSEGV. Its last output: the compiler says something"),
        ("hang", {"time_s": 0.5}, "it took longer than 0.5 s and was killed"),
    ],
)
def test_build_that_breaks_leaves_eager_and_is_not_tried_again(
    home: Path, caplog: pytest.LogCaptureFixture, how: str, limits: dict[str, float], reason: str
) -> None:
    async def work(server: Server) -> None:
        loaded = await server.load("one")
        assert server.ready == []
        assert loaded.predictor.backend.name == "eager"
        assert answers(loaded)[0][0] in ("left", "right")
        report = report_of(home)
        assert report.status == "failed"
        assert report.reason is not None
        assert re.match(reason, report.reason)
        assert f"was not built: {report.reason}" in caplog.text
        await Server(home, "right").load("one")  # after a restart
        assert report_of(home) == report

    with_server(work, home, how, **limits)


def test_build_that_wants_too_much_memory_fails_alone(home: Path) -> None:
    async def work(server: Server) -> None:
        await server.load("one")
        assert server.ready == []
        report = report_of(home)
        assert (report.status, report.reason) == ("failed", "MemoryError: ")

    with_server(work, home, "greedy", memory_bytes=4 * 2**30)


def test_what_is_not_the_networks_fault_is_tried_again_by_the_next_process_only(home: Path) -> None:
    async def work(server: Server) -> None:
        await server.load("one")
        assert not (home / "registry" / "one" / "1" / "exports").exists()
        server.builds._builder = (sys.executable, "-c", "raise SystemExit(1)")
        await server.load("one")
        assert not (home / "registry" / "one" / "1" / "exports").exists()

    with_server(work, home, "refuse")


def test_closing_ends_the_builder_and_remembers_nothing(home: Path, builders: Builders) -> None:
    async def work(server: Server) -> None:
        builders.gate.set()
        loaded = await server.models.get("one")
        server.builds.start(loaded)
        await builders.has_started.wait()
        await server.builds.close()
        with pytest.raises(ProcessLookupError):
            os.kill(builders.pids[0], 0)
        assert not (home / "registry" / "one" / "1" / "exports").exists()

    with_server(work, home, "hang")


def test_model_loaded_again_while_it_is_built_is_swapped_too(home: Path, builders: Builders) -> None:
    async def work(server: Server) -> None:
        server.models.on_load = server.builds.start
        gone = await load_watched(server, "one")
        await builders.has_asked.wait()
        await server.models.unload("one")
        async with asyncio.timeout(PATIENCE_S):  # the thread that loaded it has it for a moment
            await gone.wait()
        again = await server.models.get("one")
        builders.gate.set()
        await server.builds.idle()
        assert again.predictor.backend.name == "openvino"
        assert len(server.ready) == 1
        assert builders.built == ["one/1"]

    with_server(work, home, "right")


def test_each_backend_is_loaded_beside_the_eager_network_after_a_swap_too(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Second(StandIn):
        libraries = ("pydantic",)

    beside: list[Backend] = []

    def noting(exports: Exports, eager: EagerBackend, *args: Any, **options: Any) -> Chosen | None:
        beside.append(eager)
        return choosing.choose(exports, eager, *args, **options)

    monkeypatch.setattr(choosing, "COMPILERS", (StandIn(), Second()))
    monkeypatch.setattr(backend_builds, "choose", noting)

    async def work(server: Server) -> None:
        loaded = await server.models.get("one")
        eager = loaded.predictor.backend
        server.builds.start(loaded)
        await server.builds.idle()
        assert [backend.name for backend in server.ready] == ["openvino"]
        assert beside == [eager] * 3  # before anything is built, and after each

    with_server(work, home, "right")


def test_model_that_left_is_not_built_and_its_network_goes_with_it(home: Path, builders: Builders) -> None:
    names = ["one", "two", "three", "four", "five"]
    for number, name in enumerate(names[1:]):
        publish_compass(Registry(home / "registry"), name, gain=3.0 + number)

    async def work(server: Server) -> None:
        server.models.on_load = server.builds.start
        gone = [await load_watched(server, "one")]
        server.models.budget_bytes = server.models.size_bytes * 5 // 2  # two of them
        await builders.has_asked.wait()
        gone += [await load_watched(server, name) for name in names[1:]]
        async with asyncio.timeout(PATIENCE_S):  # the looking for what is stored has them for a moment
            for event in gone[:3]:
                await event.wait()
        assert [event.is_set() for event in gone] == [True, True, True, False, False]
        builders.gate.set()
        await server.builds.idle()
        assert builders.built == ["one/1", "four/1", "five/1"]  # the first was under way
        await server.models.get("two")
        await server.builds.idle()
        assert builders.built[3:] == ["two/1"]

    with_server(work, home, "refuse")


async def load_watched(server: Server, name: str) -> asyncio.Event:
    """Loads the model. Returns what is set when its eager network has left memory."""
    loaded = await server.models.get(name)
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    weakref.finalize(loaded.predictor.backend, loop.call_soon_threadsafe, gone.set).atexit = False
    return gone


def test_version_with_the_weights_of_another_is_built_too(home: Path, builders: Builders) -> None:
    publish_compass(Registry(home / "registry"), "one")

    async def work(server: Server) -> None:
        builders.gate.set()
        for reference in ("one/1", "one/2", "one/1"):
            await server.load(reference)
        assert builders.built == ["one/1", "one/2"]

    with_server(work, home, "refuse")


def test_builder_that_waits_for_another_ends_with_its_parent(tmp_path: Path) -> None:
    lock = tmp_path / "exports" / ".lock"
    lock.parent.mkdir()
    arguments = [f"--{name}={tmp_path}" for name in ("registry", "datasets", "weights")]
    arguments += ["--name=one", "--key=openvino", "--precision=auto", "--device=cpu", "--threads=1"]
    parent_code = (
        "import os, subprocess, sys\n"
        "command = [sys.executable, '-m', 'app.engine.builds.build_backend', *sys.argv[1:]]\n"
        "command += ['--memory-bytes=0', f'--parent={os.getpid()}']\n"
        # as `BackendBuilds` starts it: a builder lowers the priority of its whole session
        "print(subprocess.Popen(command, start_new_session=True).pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", parent_code, *arguments]
    with lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with children.child(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
            assert parent.stdout is not None
            builder = psutil.Process(int(parent.stdout.readline()))
            wait_until(lambda: any(opened.path == str(lock) for opened in builder.open_files()))
            assert not any("libtorch" in mapped.path for mapped in builder.memory_maps())  # waiting costs little
            parent.kill()
        wait_until(lambda: not builder.is_running() or builder.status() == psutil.STATUS_ZOMBIE)


def test_eager_by_choice_builds_nothing(home: Path) -> None:
    async def work(server: Server) -> None:
        await server.load("one")
        assert server.ready == []

    with_server(work, home, "crash", policy=Policy(backend="eager"))


def test_absent_compilers_are_said_once(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    publish_compass(Registry(home / "registry"), "two")
    caplog.set_level(logging.INFO)

    async def work(server: Server) -> None:
        for name in ("one", "two"):
            await server.load(name)
        assert server.ready == []
        assert caplog.text.count("no openvino backends are built in float32: it is not there") == 1

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(StandIn, "why_not", lambda *_: "it is not there")
        with_server(work, home, "crash")


def test_model_deleted_while_it_is_built_is_no_error(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work(server: Server) -> None:
        loaded = await server.models.get("one")
        server.registry.delete("one", 1)
        server.builds.start(loaded)
        await server.builds.idle()
        assert "one/1 stays eager" in caplog.text
        assert not (home / "registry" / "one").exists()

    with_server(work, home, "right")


def test_version_shows_what_was_built_from_it_with_real_pictures(shades: RunningApi, one_thread: None) -> None:
    """The real builder, on the images that the model says it learned from."""
    registry, home = shades.services.registry, shades.home
    dataset = shades.services.datasets.resolve("shades").info.reference
    version = publish_compass(registry, "one", dataset=dataset)

    async def work(server: Server) -> None:
        await server.load("one")
        assert [backend.name for backend in server.ready] == ["openvino"]

    with_server(work, home, None)
    answer = shades.http.get("/v1/models/one/versions/1").json()
    (export,) = answer["exports"]
    assert (export["status"], export["identity"]["backend"]) == ("verified", "openvino")
    assert export["agreement"]["source"] == "dataset"
    assert [speed["batch"] for speed in export["speeds"]] == [1, 4, 8]
    assert version.manifest.dataset == DatasetReference.model_validate(answer["manifest"]["dataset"])


def test_real_server_builds_and_swaps_beside_its_requests(start_api: StartApi) -> None:
    """With the server's own event loop, which is uvloop's and starts processes in its own way."""
    api = start_api(backend="openvino")
    publish_compass(api.services.registry)
    assert api.classify(pictures.png()).json()["model"]["backend"] == "eager"

    # the builder has the lowest priority, so a busy machine takes minutes
    wait_until(lambda: api.classify(pictures.png()).json()["model"]["backend"] == "openvino", interval_s=0.5)

    answer = api.classify(pictures.png()).json()
    assert answer["predictions"][0]["classes"][0]["label"] == "left"
    exports = api.http.get("/v1/models/compass/versions/1").json()["exports"]
    assert [export["status"] for export in exports] == ["verified"]


@pytest.fixture
def integers(shades: RunningApi, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> RunningApi:
    """With a dataset, `photos`, the models `own` of it and `other` of none, and one way to build them: in int8."""
    monkeypatch.setattr(choosing, "COMPILERS", (StandInOfIntegers(),))
    post_photos(shades)
    dataset = shades.services.datasets.resolve("photos").info.reference
    publish_compass(shades.services.registry, "own", dataset=dataset)
    publish_compass(shades.services.registry, "other", gain=3.0)
    return shades


def post_photos(api: RunningApi, *, of_each: int = 12) -> None:
    """As many as int8 needs."""
    archive = {"file": ("s.zip", image_folder_zip(of_each=of_each))}
    assert api.http.post("/v1/datasets", data={"name": "photos"}, files=archive).status_code == 201


def in_int8(named: str | None) -> Policy:
    return Policy(backend="openvino", precision="int8", calibration_dataset=named)


def calibrated_on(api: RunningApi, name: str) -> list[str]:
    reports = Exports(api.home / "registry" / name / "1" / "exports").reports()
    assert [report.status for report in reports] == ["verified"] * len(reports)
    return [report.calibration.dataset for report in reports if report.calibration]


def test_int8_of_a_model_with_its_own_data_set_stays_whatever_is_named(integers: RunningApi) -> None:
    async def load(server: Server) -> None:
        await server.load("own")
        assert [backend.name for backend in server.ready] == ["openvino"]

    with_server(load, integers.home, "integers", policy=in_int8(None))
    assert calibrated_on(integers, "own") == ["photos/1"]
    for named in ("photos", "no-such"):
        with_server(load, integers.home, "crash", policy=in_int8(named))
    integers.services.datasets.delete("photos")
    with_server(load, integers.home, "crash", policy=in_int8(None))


def test_int8_is_built_anew_when_there_is_a_newer_version_of_the_named_data_set(integers: RunningApi) -> None:
    async def load(server: Server) -> None:
        await server.load("other")
        assert [backend.name for backend in server.ready] == ["openvino"]

    with_server(load, integers.home, "integers", policy=in_int8("photos"))
    for named in ("photos", "photos/1"):
        with_server(load, integers.home, "crash", policy=in_int8(named))
    post_photos(integers, of_each=13)
    with_server(load, integers.home, "integers", policy=in_int8("photos"))
    assert calibrated_on(integers, "other") == ["photos/2", "photos/1"]


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (None, "Set FOVEA_CALIBRATION_DATASET to a dataset for them."),
        ("shadse", "FOVEA_CALIBRATION_DATASET: There is no dataset 'shadse'. Available: shades."),
    ],
)
def test_without_pictures_to_calibrate_on_no_builder_starts_and_it_is_said_once(
    integers: RunningApi, builders: Builders, caplog: pytest.LogCaptureFixture, named: str | None, words: str
) -> None:
    publish_compass(integers.services.registry, "another", gain=4.0)
    builders.gate.set()

    async def work(server: Server) -> None:
        for name in ("other", "another"):
            await server.load(name)
            assert not Exports(integers.home / "registry" / name / "1" / "exports").reports()
        assert builders.built == []
        assert caplog.text.count(words) == 1

    with_server(work, integers.home, "integers", policy=in_int8(named))


@pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="NNCF is not installed: pip install 'fovea[int8]'")
def test_real_builder_calibrates_on_the_named_data_set(
    shades: RunningApi, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    post_photos(shades)
    publish_compass(shades.services.registry, "one")
    monkeypatch.setattr(choosing, "COMPILERS", (OpenVinoInt8(),))
    monkeypatch.setattr(machine, "_processor_flags", lambda: {"avx512_vnni"})

    async def work(server: Server) -> None:
        loaded = await server.load("one")
        assert [(backend.name, backend.precision) for backend in server.ready] == [("openvino", "int8")]
        assert answers(loaded)[0][0] in ("left", "right")
        (report,) = Exports(shades.home / "registry" / "one" / "1" / "exports").reports()
        assert report.calibration is not None
        assert report.calibration.dataset == "photos/1"

    with_server(work, shades.home, "quantise", policy=in_int8("photos"))
