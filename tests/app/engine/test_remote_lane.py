"""The lane of an engine process: shared batches, shared memory, and nothing of it is left behind."""

from __future__ import annotations

import asyncio
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from app.engine.errors import EngineFull
from app.engine.loaded_models import EXACT
from models.backends.eager import EagerBackend
from models.backends.graphs import ClassificationGraph
from models.predictors import loading
from models.predictors.classification import Classifier, ClassSelection
from models.predictors.segmentation import SegmentationSelection, Segmenter
from tests import children
from tests.app import pictures
from tests.app.engine.test_engine import SlowLoading
from tests.app.engine_processes import Served, settings_of, until, with_served
from tests.app.engines import note_batches
from tests.app.exposed import Exposed
from tests.app.finders import finders_from_version
from tests.app.running_api import running_api
from tests.waiting import wait_until
from workers.supervision.child_process import code_environment

VIEW = torch.arange(28 * 28, dtype=torch.int64).to(torch.uint8).view(1, 28, 28)
ALL = ClassSelection()


@pytest.fixture
def painters_home(finders_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Whose segmentation network, `painter`, is one that this process can stand in for."""
    monkeypatch.setattr(loading, "load_version", finders_from_version())
    return finders_home


def test_views_of_two_processes_share_a_batch_and_interactive_ones_go_first(
    finders_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = note_batches(monkeypatch)

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

    with_served(finders_home, work)


@pytest.mark.parametrize("priority", ["interactive", "bulk"])
def test_stuck_device_makes_a_process_not_ready_whatever_waits_there(
    finders_home: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch, priority: str
) -> None:
    monkeypatch.setattr("app.engine.remote.server._LONG_S", 0.1)
    monkeypatch.setattr("app.engine.remote.server._LOOKS_EVERY_S", 0.01)
    monkeypatch.setattr("app.routes.health.longest_batch_s", lambda _: 0.2)

    async def work(served: Served) -> None:
        settings = settings_of(finders_home, redis_url=redis_url, engine_socket=str(served.path))
        loop = asyncio.get_running_loop()

        def ask() -> None:
            def engine_check() -> dict[str, Any]:
                check: dict[str, Any] = api.http.get("/readyz").json()["checks"]["engine"]
                return check

            with running_api(settings) as api, ThreadPoolExecutor(1) as client:
                assert api.classify(pictures.png()).status_code == 200
                assert engine_check()["ok"]
                release = served.hold()
                headers = {"Content-Type": "image/png", "X-Priority": priority}
                question = partial(api.http.post, "/v1/classify?model=compass", content=pictures.png(), headers=headers)
                asked = client.submit(question)
                try:
                    wait_until(lambda: not engine_check()["ok"])
                    assert engine_check()["detail"].startswith("stuck")
                    assert Exposed.of(api.http).value("fovea_device_busy_seconds") > 0.2
                    assert served.lane.waiting == 1
                finally:
                    loop.call_soon_threadsafe(release)
                assert asked.result().status_code == 200
                wait_until(lambda: engine_check()["ok"])
                wait_until(lambda: Exposed.of(api.http).value("fovea_device_busy_seconds") == 0)

        await asyncio.to_thread(ask)

    with_served(finders_home, work)


def test_bulk_views_that_others_go_before_are_no_sign_of_a_stuck_device(finders_home: Path) -> None:
    async def work(served: Served) -> None:
        async with served.client() as (models, lane):
            model = await models.get("compass")
            release = served.hold()
            waiting = lane.submit(model, VIEW, ALL, "bulk")
            await until(lambda: served.lane.waiting == 1)
            assert served.lane.busy_s > lane.busy_s == 0
            release()
            await waiting

    with_served(finders_home, work)


def test_load_that_does_not_end_is_told_of_to_every_process_until_it_ends(
    finders_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.engine.remote.server._LONG_S", 0.1)
    monkeypatch.setattr("app.engine.remote.server._LOOKS_EVERY_S", 0.01)
    loading = SlowLoading(monkeypatch)

    async def work(served: Served) -> None:
        async with served.client() as (models, lane), served.client() as (others_models, _):
            getting = asyncio.create_task(models.get("compass"))
            await until(lambda: models.loading_s > 0.1 and others_models.loading_s > 0.1)
            assert lane.busy_s == 0
            loading.go_on.set()
            await getting
            await until(lambda: models.loading_s == others_models.loading_s == 0)

    with_served(finders_home, work)


def test_who_stops_waiting_frees_the_place_there_and_the_memory_here(finders_home: Path) -> None:
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

    with_served(finders_home, work)


def test_full_memory_is_refused_and_used_again(finders_home: Path) -> None:
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

    with_served(finders_home, work)


def test_model_that_left_before_its_view_came_is_loaded_again(finders_home: Path) -> None:
    async def work(served: Served) -> None:
        async with served.client() as (models, lane):
            model = await models.get("compass")
            await served.models.unload("compass")
            await until(lambda: not models.all())
            await lane.submit(model, VIEW, ALL, "interactive")
            assert [one.source.reference for one in models.all()] == ["compass/1"]

    with_served(finders_home, work)


def test_who_insists_on_float32_gets_it_also_when_the_model_left_meanwhile(finders_home: Path) -> None:
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

    with_served(finders_home, work)


def test_error_of_the_network_is_said_where_the_view_came_from(
    finders_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> list[torch.Tensor]:
        msg = "no such kernel"
        raise RuntimeError(msg)

    async def work(served: Served) -> None:
        async with served.client() as (models, lane):
            model = await models.get("compass")
            monkeypatch.setattr(Classifier, "predict_prepared", broken)
            with pytest.raises(RuntimeError, match="no such kernel"):
                await lane.submit(model, VIEW, ALL, "interactive")

    with_served(finders_home, work)


def test_large_outputs_are_not_made_faster_than_they_are_finished(painters_home: Path) -> None:
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

    with_served(painters_home, work)


def test_outputs_of_a_model_that_left_and_came_back_are_finished_one_for_one(painters_home: Path) -> None:
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

    with_served(painters_home, work)


def test_outputs_of_a_model_that_is_another_than_was_asked_for_are_finished(painters_home: Path) -> None:
    async def work(served: Served) -> None:
        async with served.client() as (models, lane):
            model = await models.get("painter")
            model.source = replace(model.source, digest=f"{model.source.digest}{EXACT}")  # the one in memory does
            view = torch.zeros(3, 160, 200, dtype=torch.uint8)
            await lane.submit(model, view, SegmentationSelection(), "interactive")
            assert [one.source.digest.endswith(EXACT) for one in served.models.all()] == [False]
            lane.finished(model, 1)
            await until(lambda: served.lane._unfinished == 0)

    with_served(painters_home, work)


@pytest.mark.parametrize("output", [object(), torch.zeros(2, device="meta")], ids=["no form", "no bytes"])
def test_output_that_cannot_be_sent_is_an_error_and_the_lane_goes_on(
    painters_home: Path, monkeypatch: pytest.MonkeyPatch, output: object
) -> None:
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

    with_served(painters_home, work)


def test_http_process_that_is_killed_leaves_nothing_behind(finders_home: Path) -> None:
    async def work(served: Served) -> None:
        served.hold()
        command = [sys.executable, "-m", "tests.app.engine_client", str(served.path), "5"]
        with children.child(command, env=code_environment()):
            await until(lambda: served.lane.waiting == 5)
        await until(lambda: served.lane.waiting == 0)
        assert not served.server._sessions

    with_served(finders_home, work)
