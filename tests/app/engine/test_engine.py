"""The engine in bounds: loads once, forgets the oldest, refuses when full, gives up in time, never blocks the loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from copy import deepcopy
from os import SEEK_END
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from app.engine.answers import Drawing, ImageAnswer
from app.engine.batch import stack
from app.engine.engine import Engine
from app.engine.errors import DeadlineExceeded, EngineFull, ModelLoading, OutOfDeviceMemory, WrongTask
from app.engine.lane import Lane, Priority
from app.engine.loaded_models import LoadedModels
from app.engine.model_source import ModelFinder, ModelSource
from models.backends.eager import EagerBackend
from models.backends.graphs import ClassificationGraph
from models.drawing.fonts import Fonts
from models.errors import CorruptVersion, ModelsError, TooManyTiles, UnknownVersion, WeightsUnavailable
from models.images.decode import decode_image
from models.predictions import ClassScore
from models.predictor import AnyPredictor
from models.predictors import loading
from models.predictors.classification import Classifier, ClassSelection
from models.predictors.detection import DetectionSelection
from models.store.registry import ModelVersion, Registry
from tests.app import pictures
from tests.app.compass import publish_compass
from tests.app.engines import ALL, Deadlines, note_batches, with_engine
from tests.waiting import BRIEF_S, PATIENCE_S, wait_until


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """With three models."""
    registry = Registry(tmp_path / "registry")
    for name in ("one", "two", "three"):
        publish_compass(registry, name)
    return registry


def hold_lane(engine: Engine) -> threading.Event:
    """The device is busy until the event is set."""
    release = threading.Event()
    lane = engine._lane
    assert isinstance(lane, Lane)
    lane._is_busy = True

    async def wait() -> None:
        await asyncio.to_thread(release.wait, PATIENCE_S)
        lane._is_busy = False
        lane._start()

    engine.held = asyncio.create_task(wait())  # type: ignore[attr-defined]
    return release


async def until_waiting(engine: Engine, views: int) -> None:
    await asyncio.to_thread(wait_until, lambda: engine._lane.waiting == views)


class SlowLoading:
    """Holds up every load until told; counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loads = 0
        self.go_on = threading.Event()
        original = loading.load_version

        def slowly(*args: Any) -> AnyPredictor:
            self.loads += 1
            assert self.go_on.wait(PATIENCE_S)
            return original(*args)

        monkeypatch.setattr(loading, "load_version", slowly)


def test_model_is_loaded_once_however_many_ask(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading = SlowLoading(monkeypatch)

    async def work(engine: Engine) -> None:
        asked = [
            asyncio.create_task(engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S)) for _ in range(8)
        ]
        await asyncio.to_thread(wait_until, lambda: loading.loads)
        loading.go_on.set()
        answers = await asyncio.gather(*asked)
        assert loading.loads == 1
        assert all(isinstance(answer.images[0], ImageAnswer) for answer in answers)

    with_engine(tmp_path, work)


def test_deadline_while_loading_says_so_and_loading_goes_on(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading, deadlines = SlowLoading(monkeypatch), Deadlines(monkeypatch)

    async def work(engine: Engine) -> None:
        asked = asyncio.create_task(engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S))
        await asyncio.to_thread(wait_until, lambda: loading.loads)
        deadlines.pass_now()
        with pytest.raises(ModelLoading):
            await asked
        loading.go_on.set()
        await engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S)
        assert loading.loads == 1
        assert engine.pending_images == 0

    with_engine(tmp_path, work)


@pytest.mark.parametrize("is_in_memory", [True, False])
def test_deadline_while_the_model_is_looked_up_is_no_load(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_in_memory: bool
) -> None:
    go_on = threading.Event()
    original = ModelFinder.find

    def slowly(*args: Any) -> ModelSource:
        assert go_on.wait(PATIENCE_S)
        return original(*args)

    async def work(engine: Engine) -> None:
        if is_in_memory:
            await engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S)
        monkeypatch.setattr(ModelFinder, "find", slowly)
        with pytest.raises(DeadlineExceeded):
            await engine.predict("one", [pictures.png()], ALL, timeout_s=BRIEF_S)
        go_on.set()

    with_engine(tmp_path, work)


def test_load_that_does_not_end_is_told_of_with_the_models_name(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("app.engine.loading_thread._LONG_S", 0.1)
    loading = SlowLoading(monkeypatch)

    async def work(engine: Engine) -> None:
        assert engine.models.loading_s == 0
        getting = asyncio.create_task(engine.models.get("one"))
        await asyncio.to_thread(wait_until, lambda: caplog.messages)
        assert engine.models.loading_s > 0
        assert caplog.messages == ["one/1 has been loading for 0.1 s; other loads wait for it"]
        loading.go_on.set()
        await getting
        assert engine.models.loading_s == 0

    with_engine(tmp_path, work)


def test_least_recently_used_model_goes_when_memory_is_short_and_pinned_ones_stay(
    registry: Registry, tmp_path: Path
) -> None:
    room = 2 * registry.resolve("one").manifest.size_bytes

    async def work(engine: Engine) -> None:
        for name in ("one", "two", "one", "three"):
            await engine.predict(name, [pictures.png()], ALL, timeout_s=PATIENCE_S)
        assert [model.source.reference for model in engine.models.all()] == ["one/1", "three/1"]
        assert engine.models.size_bytes <= room

    async def work_with_pin(engine: Engine) -> None:
        for name in ("one", "two", "three"):
            await engine.predict(name, [pictures.png()], ALL, timeout_s=PATIENCE_S)
        assert [model.source.reference for model in engine.models.all()] == ["one/1", "three/1"]

    with_engine(tmp_path, work, budget_bytes=room)
    with_engine(tmp_path, work_with_pin, budget_bytes=room, pinned=["one"])


def test_pin_moves_with_its_reference(registry: Registry, tmp_path: Path) -> None:
    room = 2 * registry.resolve("one").manifest.size_bytes

    async def work(engine: Engine) -> None:
        for version in (1, 2, 3):
            if version > 1:
                publish_compass(registry, "one", gain=-2.0 * version)
            registry.set_alias("one", "production", version)
            await engine.models.load("one")
            await engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S)
            for other in ("two", "three"):
                await engine.predict(other, [pictures.png()], ALL, timeout_s=PATIENCE_S)
            pinned = [model.source.reference for model in engine.models.all() if model.is_pinned]
            assert pinned == [f"one/{version}"]
            assert engine.models.size_bytes <= room

    with_engine(tmp_path, work, budget_bytes=room, pinned=["one"])


def test_pinned_version_that_was_deleted_leaves_when_memory_is_short(registry: Registry, tmp_path: Path) -> None:
    room = 2 * registry.resolve("one").manifest.size_bytes

    async def work(engine: Engine) -> None:
        await engine.predict("one/1", [pictures.png()], ALL, timeout_s=PATIENCE_S)
        publish_compass(registry, "one", gain=-2.0)
        registry.delete("one", 1)
        for other in ("two", "three"):
            await engine.predict(other, [pictures.png()], ALL, timeout_s=PATIENCE_S)
        assert [model.source.reference for model in engine.models.all()] == ["two/1", "three/1"]

    with_engine(tmp_path, work, budget_bytes=room, pinned=["one/1"])


def test_damaged_model_costs_nobody_its_place_and_is_not_read_again_at_once(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = registry.resolve("three")
    version.state_dict_path.chmod(0o644)
    with version.state_dict_path.open("r+b") as file:
        file.seek(-1, SEEK_END)
        file.write(b"\xaa")
    room = 2 * version.manifest.size_bytes
    loads: list[str] = []
    original = loading.load_version

    def noted(registry: Registry, version: ModelVersion, device: torch.device) -> AnyPredictor:
        loads.append(version.manifest.name)
        return original(registry, version, device)

    monkeypatch.setattr(loading, "load_version", noted)

    async def work(engine: Engine) -> None:
        for _ in range(3):
            for name in ("one", "two"):
                await engine.predict(name, [pictures.png()], ALL, timeout_s=PATIENCE_S)
            with pytest.raises(CorruptVersion, match="sha256"):
                await engine.predict("three", [pictures.png()], ALL, timeout_s=PATIENCE_S)

    with_engine(tmp_path, work, budget_bytes=room)
    assert sorted(loads) == ["one", "three", "two"]


def test_swap_without_room_for_both_versions_lets_nobody_wait(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_compass(registry, "one", gain=-2.0)
    registry.set_alias("one", "production", 1)
    room = registry.resolve("one").manifest.size_bytes * 3 // 2

    async def work(engine: Engine) -> None:
        await engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S)
        loading = SlowLoading(monkeypatch)
        moving = asyncio.create_task(engine.models.load_beside("one", 2))
        await asyncio.to_thread(wait_until, lambda: loading.loads)
        during = await engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S)
        loading.go_on.set()
        await moving
        before = await engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S)
        registry.set_alias("one", "production", 2)
        after = await engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S)
        assert [answer.model.version for answer in (during, before, after)] == [1, 1, 2]
        assert loading.loads == 1
        await engine.predict("two", [pictures.png()], ALL, timeout_s=PATIENCE_S)
        assert engine.models.size_bytes <= room

    with_engine(tmp_path, work, budget_bytes=room)


def test_long_load_says_nothing_of_how_fast_images_go(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading = SlowLoading(monkeypatch)
    clock = {"ahead_s": 0.0}
    real = time.monotonic
    monkeypatch.setattr("app.engine.admission.time.monotonic", lambda: real() + clock["ahead_s"])

    async def work(engine: Engine) -> None:
        first = asyncio.create_task(engine.predict("one", [pictures.png()] * 4, ALL, timeout_s=PATIENCE_S))
        await asyncio.to_thread(wait_until, lambda: loading.loads)
        clock["ahead_s"] = 100.0  # so long the load takes
        loading.go_on.set()
        await first
        assert engine._admission._view_s < 5

    with_engine(tmp_path, work)


def test_observer_that_breaks_does_not_stop_the_device(registry: Registry, tmp_path: Path) -> None:
    class Broken:
        def batch_predicted(
            self, model: ModelSource, *, backend: str, queue_s: Sequence[float], inference_s: float
        ) -> None:
            msg = "the disk is full"
            raise OSError(msg)

        def image_predicted(self, model: ModelSource, *, backend: str, decode_s: float, finish_s: float) -> None: ...

        def request_ended(
            self,
            reference: str,
            model: ModelSource | None,
            *,
            outcome: str,
            images: int,
            seconds: float,
            backend: str | None = None,
        ) -> None: ...

    async def work(engine: Engine) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        (await engine.models.get("one")).best_batch = 1
        await engine.predict("one", [pictures.png()] * 3, ALL, timeout_s=PATIENCE_S)

    with_engine(tmp_path, work, observers=[Broken()])


def test_model_that_never_fits_is_refused_and_the_others_stay(registry: Registry, tmp_path: Path) -> None:
    room = registry.resolve("one").manifest.size_bytes

    async def work(engine: Engine) -> None:
        await engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S)
        with pytest.raises(OutOfDeviceMemory, match="FOVEA_MODEL_MEMORY"):
            await engine.predict("two", [pictures.png()], ALL, timeout_s=PATIENCE_S)
        await engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S)

    with_engine(tmp_path, work, budget_bytes=room, pinned=["one"])


def test_moved_alias_is_answered_by_the_old_version_until_the_new_one_is_loaded(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_compass(registry, "one", gain=-2.0)
    registry.set_alias("one", "production", 1)

    async def version_that_answers(engine: Engine) -> int | None:
        return (await engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S)).model.version

    async def work(engine: Engine) -> None:
        assert await version_that_answers(engine) == 1
        loading = SlowLoading(monkeypatch)
        registry.set_alias("one", "production", 2)
        assert await version_that_answers(engine) == 1
        loading.go_on.set()
        await engine.models.load("one")
        assert await version_that_answers(engine) == 2

    with_engine(tmp_path, work)


def test_float32_is_had_by_who_insists_and_a_faster_backend_by_all_others(registry: Registry, tmp_path: Path) -> None:
    async def work(engine: Engine) -> None:
        model = await engine.models.get("one")
        graph = ClassificationGraph(deepcopy(model.predictor.module), model.predictor.preset)
        assert isinstance(engine.models, LoadedModels)
        engine.models.adopt(model, EagerBackend(graph, "cpu", "bfloat16"))

        fast = await engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S)
        exact = await engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S, precision="float32")

        assert (fast.precision, exact.precision) == ("bfloat16", "float32")
        assert [loaded.predictor.backend.precision for loaded in engine.models.all()] == ["bfloat16", "float32"]
        assert isinstance(fast.images[0], ImageAnswer)
        assert isinstance(exact.images[0], ImageAnswer)
        assert fast.images[0].prediction[0].score != exact.images[0].prediction[0].score
        assert fast.images[0].prediction[0].score == pytest.approx(exact.images[0].prediction[0].score, abs=0.02)

    with_engine(tmp_path, work)


def test_unloaded_model_is_loaded_again_when_asked(registry: Registry, tmp_path: Path) -> None:
    async def work(engine: Engine) -> None:
        assert not await engine.models.unload("one")
        await engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S)
        assert await engine.models.unload("one")
        assert engine.models.all() == []
        model = await engine.models.get("one")
        graph = ClassificationGraph(deepcopy(model.predictor.module), model.predictor.preset)
        engine.models.adopt(model, EagerBackend(graph, "cpu", "bfloat16"))  # type: ignore[attr-defined]
        await engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S, precision="float32")
        assert await engine.models.unload("one")
        assert engine.models.all() == []  # nor its float32 copy
        await engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S)

    with_engine(tmp_path, work)


def test_memory_of_a_model_that_left_goes_back_when_no_network_is_being_recorded(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    went_back = threading.Event()
    monkeypatch.setattr("models.backends.cuda_graphs.empty_cache", went_back.set)

    async def work(engine: Engine) -> None:
        await engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S)
        assert await engine.models.unload("one")
        assert await asyncio.to_thread(went_back.wait, PATIENCE_S)

    with_engine(tmp_path, work)


def test_full_engine_refuses_at_once_and_says_when_to_come_back(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading = SlowLoading(monkeypatch)

    async def work(engine: Engine) -> None:
        first = asyncio.create_task(engine.predict("one", [pictures.png()] * 6, ALL, timeout_s=PATIENCE_S))
        await asyncio.to_thread(wait_until, lambda: engine.pending_images == 6)
        with pytest.raises(EngineFull) as refused:
            await engine.predict("one", [pictures.png()] * 3, ALL, timeout_s=PATIENCE_S)
        assert refused.value.retry_after_s is not None
        assert refused.value.retry_after_s >= 1
        loading.go_on.set()
        await first
        assert engine.pending_images == 0
        await engine.predict("one", [pictures.png()] * 3, ALL, timeout_s=PATIENCE_S)

    with_engine(tmp_path, work)


def test_prediction_that_is_not_ready_in_time_is_given_up(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on, deadlines = threading.Event(), threading.Event(), Deadlines(monkeypatch)
    original = Classifier.predict_prepared

    async def work(engine: Engine) -> None:
        await engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S)

        def slowly(
            predictor: Classifier, batch: torch.Tensor, selections: Sequence[ClassSelection]
        ) -> list[torch.Tensor]:
            began.set()
            assert go_on.wait(PATIENCE_S)
            return original(predictor, batch, selections)

        monkeypatch.setattr(Classifier, "predict_prepared", slowly)
        asked = asyncio.create_task(engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S))
        await asyncio.to_thread(began.wait, PATIENCE_S)
        deadlines.pass_now()
        with pytest.raises(DeadlineExceeded):
            await asked
        assert engine.pending_images == 0
        go_on.set()
        await engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S)

    with_engine(tmp_path, work)


def test_batch_that_does_not_fit_is_halved_and_only_the_image_that_never_fits_is_refused(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Classifier.predict_prepared
    sizes: list[int] = []

    def short_of_memory(
        predictor: Classifier, batch: torch.Tensor, selections: Sequence[ClassSelection]
    ) -> list[torch.Tensor]:
        sizes.append(len(batch))
        if len(batch) > 2 or (batch == 255).all(dim=(1, 2, 3)).any():  # white takes the most room
            raise torch.OutOfMemoryError
        return original(predictor, batch, selections)

    white = pictures.encoded(Image.new("RGB", (40, 40), "white"))

    async def work(engine: Engine) -> None:
        model = await engine.models.get("one")
        model.best_batch = 8
        release = hold_lane(engine)
        monkeypatch.setattr(Classifier, "predict_prepared", short_of_memory)
        asked = asyncio.create_task(engine.predict("one", [white, *[pictures.png()] * 4], ALL, timeout_s=PATIENCE_S))
        await until_waiting(engine, 5)
        release.set()
        answer = await asked
        assert isinstance(answer.images[0], OutOfDeviceMemory)
        assert all(isinstance(image, ImageAnswer) for image in answer.images[1:])
        assert max(sizes) == 5

    with_engine(tmp_path, work)


def test_failed_load_is_tried_again_and_missing_weights_are_not_at_once(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    def unavailable(*_: Any, **__: Any) -> AnyPredictor:
        nonlocal tries
        tries += 1
        msg = "no network"
        raise WeightsUnavailable(msg)

    monkeypatch.setattr(loading, "load_pretrained", unavailable)

    async def work(engine: Engine) -> None:
        for _ in range(3):
            with pytest.raises(WeightsUnavailable):
                await engine.predict("resnet18", [pictures.png()], ALL, timeout_s=PATIENCE_S)
        assert tries == 1

    with_engine(tmp_path, work)


def test_deleted_version_is_gone_although_it_was_loaded(registry: Registry, tmp_path: Path) -> None:
    publish_compass(registry, "one", gain=-2.0)

    async def work(engine: Engine) -> None:
        await engine.predict("one/1", [pictures.png()], ALL, timeout_s=PATIENCE_S)
        registry.delete("one", 1)
        with pytest.raises(UnknownVersion):
            await engine.predict("one/1", [pictures.png()], ALL, timeout_s=PATIENCE_S)

    with_engine(tmp_path, work)


def test_event_loop_goes_on_while_pictures_are_decoded_and_predicted(registry: Registry, tmp_path: Path) -> None:
    large = pictures.encoded(pictures.left_bright().resize((900, 900)))

    async def work(engine: Engine) -> None:
        await engine.predict("one", [large], ALL, timeout_s=PATIENCE_S)
        task = asyncio.create_task(engine.predict("one", [large] * 8, ALL, timeout_s=PATIENCE_S))
        turns = 0
        began_at = time.perf_counter()
        while not task.done():
            turns += 1
            await asyncio.sleep(0)
        elapsed_s = time.perf_counter() - began_at
        await task
        assert turns > 20 * elapsed_s  # blocked while it works, the loop would have had a handful of turns

    with_engine(tmp_path, work)


def test_unknown_model_frees_its_place(registry: Registry, tmp_path: Path) -> None:
    async def work(engine: Engine) -> None:
        with pytest.raises(ModelsError):
            await engine.predict("nothing", [pictures.png()], ALL, timeout_s=PATIENCE_S)
        assert engine.pending_images == 0

    with_engine(tmp_path, work)


def test_idle_device_takes_one_image_at_once_and_a_busy_one_finds_a_batch(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = note_batches(monkeypatch)

    async def work(engine: Engine) -> None:
        model = await engine.models.get("one")
        model.best_batch = 4
        sizes.clear()
        await engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S)
        release = hold_lane(engine)
        asked = [
            asyncio.create_task(engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S)) for _ in range(6)
        ]
        await until_waiting(engine, 6)
        release.set()
        await asyncio.gather(*asked)
        assert sizes == [1, 4, 2]

    with_engine(tmp_path, work)


def test_interactive_image_goes_before_bulk_ones_that_wait_for_the_device(registry: Registry, tmp_path: Path) -> None:
    ended: list[str] = []

    async def ask(engine: Engine, priority: Priority) -> None:
        await engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S, priority=priority)
        ended.append(priority)

    async def work(engine: Engine) -> None:
        model = await engine.models.get("one")
        model.best_batch = 1
        release = hold_lane(engine)
        bulk = [asyncio.create_task(ask(engine, "bulk")) for _ in range(3)]
        await until_waiting(engine, 3)
        interactive = asyncio.create_task(ask(engine, "interactive"))
        await until_waiting(engine, 4)
        release.set()
        await asyncio.gather(*bulk, interactive)
        assert ended == ["interactive"] + ["bulk"] * 3

    with_engine(tmp_path, work)


def test_interactive_image_overtakes_bulk_ones_that_wait_to_be_decoded(registry: Registry, tmp_path: Path) -> None:
    ended: list[str] = []

    async def ask(engine: Engine, priority: Priority) -> None:
        await engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S, priority=priority)
        ended.append(priority)

    async def work(engine: Engine) -> None:
        model = await engine.models.get("one")
        model.best_batch = 1
        release = threading.Event()
        held = asyncio.create_task(engine._decoders.run("finish", release.wait, 30))
        bulk = [asyncio.create_task(ask(engine, "bulk")) for _ in range(4)]
        interactive = asyncio.create_task(ask(engine, "interactive"))
        await asyncio.to_thread(wait_until, lambda: engine._decoders.waiting == 5)
        release.set()
        await asyncio.gather(held, *bulk, interactive)
        assert ended == ["interactive"] + ["bulk"] * 4

    with_engine(tmp_path, work)


def test_bulk_is_refused_while_there_is_room_for_interactive_requests(registry: Registry, tmp_path: Path) -> None:
    async def work(engine: Engine) -> None:
        await engine.models.get("one")
        release = hold_lane(engine)
        first = asyncio.create_task(engine.predict("one", [pictures.png()] * 6, ALL, timeout_s=PATIENCE_S))
        await until_waiting(engine, 6)
        with pytest.raises(EngineFull):
            await engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S, priority="bulk")
        second = asyncio.create_task(engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S))
        await until_waiting(engine, 7)
        release.set()
        await asyncio.gather(first, second)

    with_engine(tmp_path, work)


@pytest.mark.parametrize("how", ["cancelled", "expired"])
def test_who_stops_waiting_frees_the_place_and_is_never_predicted(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    sizes, deadlines = note_batches(monkeypatch), Deadlines(monkeypatch)

    async def work(engine: Engine) -> None:
        await engine.models.get("one")
        sizes.clear()
        release = hold_lane(engine)
        asked = asyncio.create_task(engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S))
        await until_waiting(engine, 1)
        if how == "cancelled":
            asked.cancel()
        else:
            deadlines.pass_now()
        with pytest.raises(asyncio.CancelledError if how == "cancelled" else DeadlineExceeded):
            await asked
        assert engine.pending_images == 0
        assert engine._lane.waiting == 0
        release.set()
        await engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S)
        assert sizes == [1]

    with_engine(tmp_path, work)


@pytest.mark.parametrize("how", ["cancelled", "expired"])
def test_picture_is_drawn_in_its_place_and_before_the_deadline(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    began, release, deadlines = threading.Event(), threading.Event(), Deadlines(monkeypatch)

    def annotate(pixels: torch.Tensor, _: list[ClassScore], __: Fonts) -> torch.Tensor:
        began.set()
        assert release.wait(PATIENCE_S)
        return pixels

    async def work(engine: Engine) -> None:
        await engine.models.get("one")
        drawing = Drawing(annotate=annotate, fonts=Fonts(), image_format="png")
        asked = asyncio.create_task(engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S, drawing=drawing))
        await asyncio.to_thread(began.wait, PATIENCE_S)
        assert engine.pending_images == 1
        if how == "cancelled":
            asked.cancel()
        else:
            deadlines.pass_now()
        with pytest.raises(asyncio.CancelledError if how == "cancelled" else DeadlineExceeded):
            await asked
        assert engine.pending_images == 0
        release.set()
        answer = await engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S, drawing=drawing)
        assert answer.drawn is not None
        assert answer.drawn.startswith(b"\x89PNG")

    with_engine(tmp_path, work)


def test_request_that_would_not_be_ready_in_time_is_refused_at_once(registry: Registry, tmp_path: Path) -> None:
    async def work(engine: Engine) -> None:
        await engine.models.get("one")
        release = hold_lane(engine)
        first = asyncio.create_task(engine.predict("one", [pictures.png()] * 6, ALL, timeout_s=PATIENCE_S))
        await until_waiting(engine, 6)
        with pytest.raises(EngineFull, match="ready within"):
            await engine.predict("one", [pictures.png()], ALL, timeout_s=BRIEF_S)
        release.set()
        await first

    with_engine(tmp_path, work)


def test_observers_hear_of_every_part_and_every_end(registry: Registry, tmp_path: Path) -> None:
    heard: list[tuple[str, object]] = []

    class Listener:
        def batch_predicted(
            self, model: ModelSource, *, backend: str, queue_s: Sequence[float], inference_s: float
        ) -> None:
            heard.append(("predicted", len(queue_s)))

        def image_predicted(self, model: ModelSource, *, backend: str, decode_s: float, finish_s: float) -> None:
            assert min(decode_s, finish_s) > 0
            heard.append((model.reference, backend))

        def request_ended(
            self,
            reference: str,
            model: ModelSource | None,
            *,
            outcome: str,
            images: int,
            seconds: float,
            backend: str | None = None,
        ) -> None:
            heard.append((outcome, backend if backend else images))

    async def work(engine: Engine) -> None:
        await engine.predict("one", [pictures.png()], ALL, timeout_s=PATIENCE_S)
        with pytest.raises(ModelsError):
            await engine.predict("nothing", [pictures.png()] * 2, ALL, timeout_s=PATIENCE_S)

    with_engine(tmp_path, work, observers=[Listener()])
    assert heard == [("predicted", 1), ("one/1", "eager"), ("ok", "eager"), ("failed", 2)]


def test_tiles_wait_as_images_do(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loading = SlowLoading(monkeypatch)
    large = pictures.encoded(pictures.left_bright().resize((900, 300)))

    async def work(engine: Engine) -> None:
        tiled = DetectionSelection(tile_px=300, tile_overlap=0.0)
        first = asyncio.create_task(engine.predict("one", [large, pictures.png()], tiled, timeout_s=PATIENCE_S))
        await asyncio.to_thread(wait_until, lambda: loading.loads)
        assert engine.pending_images == (1 + 3) + 1  # the whole and its tiles, and an image smaller than a tile
        with pytest.raises(EngineFull):
            await engine.predict("one", [large], tiled, timeout_s=PATIENCE_S)
        with pytest.raises(TooManyTiles):
            await engine.predict("one", [large] * 3, tiled, timeout_s=PATIENCE_S)
        loading.go_on.set()
        with pytest.raises(WrongTask, match="classification"):
            await first
        assert engine.pending_images == 0

    with_engine(tmp_path, work)


def plain_jpeg() -> bytes:
    return pictures.encoded(pictures.left_bright(), "JPEG", subsampling="4:4:4")


def test_jpegs_that_another_decoder_takes_are_answered_like_those_it_does_not(
    registry: Registry, tmp_path: Path
) -> None:
    taken: list[bytes] = []

    def take(data: bytes) -> torch.Tensor | None:
        taken.append(data)
        return decode_image(data)

    async def work(engine: Engine) -> None:
        (await engine.models.get("one")).best_batch = 1  # scores of larger batches differ in their last bits
        files = [plain_jpeg(), pictures.png(), b"no picture", pictures.jpeg()]
        answer = await engine.predict("one", files, ALL, timeout_s=PATIENCE_S)
        assert taken == [plain_jpeg()]
        engine._decode_jpeg = None
        expected = await engine.predict("one", files, ALL, timeout_s=PATIENCE_S)
        assert [str(image) for image in answer.images] == [str(image) for image in expected.images]
        assert [isinstance(image, ImageAnswer) for image in answer.images] == [True, True, False, True]

    with_engine(tmp_path, work, decode_jpeg=take)


def test_picture_that_a_gpu_has_no_room_to_prepare_is_prepared_by_the_processor(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[str] = []
    original = Classifier.prepare

    def prepare(predictor: Classifier, image: torch.Tensor, selection: ClassSelection) -> list[torch.Tensor]:
        devices.append("elsewhere" if len(devices) == 0 else image.device.type)
        if len(devices) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(predictor, image, selection)

    monkeypatch.setattr(Classifier, "prepare", prepare)

    async def work(engine: Engine) -> None:
        answer = await engine.predict("one", [plain_jpeg()], ALL, timeout_s=PATIENCE_S)
        assert isinstance(answer.images[0], ImageAnswer)
        assert devices == ["elsewhere", "cpu"]

    with_engine(tmp_path, work, decode_jpeg=decode_image)


def test_views_of_a_batch_come_to_where_some_of_them_are() -> None:
    here, there = torch.zeros(3, 2, 2, dtype=torch.uint8), torch.zeros(3, 2, 2, dtype=torch.uint8, device="meta")
    assert stack([here, here]).device.type == "cpu"
    for views in ([here, there], [there, here]):
        assert (stack(views).device.type, stack(views).shape) == ("meta", (2, 3, 2, 2))
