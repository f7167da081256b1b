"""The engine in bounds: loads once, forgets the oldest, refuses when full, gives up in time, never blocks the loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import torch

from app.inference.answers import ImageAnswer
from app.inference.engine import Engine
from app.inference.errors import DeadlineExceeded, EngineFull, ModelLoading, OutOfDeviceMemory, WrongTask
from app.inference.loaded_models import LoadedModels
from models.architectures import catalog
from models.errors import ModelsError, TooManyTiles, UnknownVersion, WeightsUnavailable
from models.predictions import ClassScore
from models.predictor import AnyPredictor, Predictor
from models.predictors.classification import Classifier, ClassSelection
from models.predictors.detection import DetectionSelection
from models.registry import Registry
from tests.app import pictures
from tests.app.compass import publish_compass
from tests.waiting import wait_until

ALL = ClassSelection()


def engine_of(home: Path, *, capacity: int = 2, max_pending_images: int = 8) -> Engine:
    known = frozenset(catalog.names())
    models = LoadedModels(
        Registry(home / "registry", reserved_names=known),
        architectures=known,
        weights_dir=home / "weights",
        allow_download=False,
        device=torch.device("cpu"),
        capacity=capacity,
    )
    return Engine(
        models,
        decode_threads=1,
        max_pending_images=max_pending_images,
        max_image_bytes=10**6,
        max_image_pixels=10**6,
    )


def with_engine(home: Path, work: Callable[[Engine], Coroutine[Any, Any, None]], **changes: Any) -> None:
    async def run() -> None:
        engine = engine_of(home, **changes)
        try:
            await work(engine)
        finally:
            await engine.close()

    asyncio.run(run())


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """With three models."""
    registry = Registry(tmp_path / "registry")
    for name in ("one", "two", "three"):
        publish_compass(registry, name)
    return registry


class SlowLoading:
    """Holds up every load until told; counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loads = 0
        self.go_on = threading.Event()
        original = Predictor.from_version

        def slowly(*args: Any) -> AnyPredictor:
            self.loads += 1
            assert self.go_on.wait(30)
            return original(*args)

        monkeypatch.setattr(Predictor, "from_version", slowly)


def test_model_is_loaded_once_however_many_ask(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading = SlowLoading(monkeypatch)

    async def work(engine: Engine) -> None:
        asked = [asyncio.create_task(engine.predict("one", [pictures.png()], ALL, timeout_s=30)) for _ in range(8)]
        await asyncio.to_thread(wait_until, lambda: loading.loads)
        loading.go_on.set()
        answers = await asyncio.gather(*asked)
        assert loading.loads == 1
        assert all(isinstance(answer.images[0], ImageAnswer) for answer in answers)

    with_engine(tmp_path, work)


def test_deadline_while_loading_says_so_and_loading_goes_on(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading = SlowLoading(monkeypatch)

    async def work(engine: Engine) -> None:
        with pytest.raises(ModelLoading):
            await engine.predict("one", [pictures.png()], ALL, timeout_s=0.2)
        loading.go_on.set()
        await engine.predict("one", [pictures.png()], ALL, timeout_s=30)
        assert loading.loads == 1
        assert engine.pending_images == 0

    with_engine(tmp_path, work)


def test_least_recently_used_model_goes(registry: Registry, tmp_path: Path) -> None:
    async def work(engine: Engine) -> None:
        for name in ("one", "two", "one", "three"):
            await engine.predict(name, [pictures.png()], ALL, timeout_s=30)
        assert [model.source.reference for model in engine.models.all()] == ["one/1", "three/1"]

    with_engine(tmp_path, work)


def test_full_engine_refuses_at_once_and_says_when_to_come_back(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading = SlowLoading(monkeypatch)

    async def work(engine: Engine) -> None:
        first = asyncio.create_task(engine.predict("one", [pictures.png()] * 6, ALL, timeout_s=30))
        await asyncio.to_thread(wait_until, lambda: engine.pending_images == 6)
        with pytest.raises(EngineFull) as refused:
            await engine.predict("one", [pictures.png()] * 3, ALL, timeout_s=30)
        assert refused.value.retry_after_s is not None
        assert refused.value.retry_after_s >= 1
        loading.go_on.set()
        await first
        assert engine.pending_images == 0
        await engine.predict("one", [pictures.png()] * 3, ALL, timeout_s=30)

    with_engine(tmp_path, work)


def test_prediction_that_is_not_ready_in_time_is_given_up(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    original = Classifier.predict_prepared

    async def work(engine: Engine) -> None:
        await engine.predict("one", [pictures.png()], ALL, timeout_s=30)

        def slowly(predictor: Classifier, batch: torch.Tensor, selection: ClassSelection) -> list[torch.Tensor]:
            assert go_on.wait(30)
            return original(predictor, batch, selection)

        monkeypatch.setattr(Classifier, "predict_prepared", slowly)
        with pytest.raises(DeadlineExceeded):
            await engine.predict("one", [pictures.png()], ALL, timeout_s=0.2)
        assert engine.pending_images == 0
        go_on.set()
        await engine.predict("one", [pictures.png()], ALL, timeout_s=30)

    with_engine(tmp_path, work)


def test_device_out_of_memory_is_an_error_of_that_request_only(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: Any) -> list[torch.Tensor]:
        raise torch.OutOfMemoryError

    async def work(engine: Engine) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(Classifier, "predict_prepared", no_memory)
            with pytest.raises(OutOfDeviceMemory):
                await engine.predict("one", [pictures.png()], ALL, timeout_s=30)
        await engine.predict("one", [pictures.png()], ALL, timeout_s=30)

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

    monkeypatch.setattr(Predictor, "from_pretrained", unavailable)

    async def work(engine: Engine) -> None:
        for _ in range(3):
            with pytest.raises(WeightsUnavailable):
                await engine.predict("resnet18", [pictures.png()], ALL, timeout_s=30)
        assert tries == 1

    with_engine(tmp_path, work)


def test_deleted_version_is_gone_although_it_was_loaded(registry: Registry, tmp_path: Path) -> None:
    publish_compass(registry, "one", gain=-2.0)

    async def work(engine: Engine) -> None:
        await engine.predict("one/1", [pictures.png()], ALL, timeout_s=30)
        registry.delete_version("one", 1)
        with pytest.raises(UnknownVersion):
            await engine.predict("one/1", [pictures.png()], ALL, timeout_s=30)

    with_engine(tmp_path, work)


def test_event_loop_goes_on_while_pictures_are_decoded_and_predicted(registry: Registry, tmp_path: Path) -> None:
    large = pictures.encoded(pictures.left_bright().resize((900, 900)))

    async def work(engine: Engine) -> None:
        await engine.predict("one", [large], ALL, timeout_s=30)
        task = asyncio.create_task(engine.predict("one", [large] * 8, ALL, timeout_s=30))
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
            await engine.predict("nothing", [pictures.png()], ALL, timeout_s=30)
        assert engine.pending_images == 0

    with_engine(tmp_path, work)


def test_outputs_of_a_batch_are_finished_before_the_next_one_is_predicted(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    predict, finish = Classifier.predict_prepared, Classifier.finish

    def noted_predict(predictor: Classifier, batch: torch.Tensor, selection: ClassSelection) -> list[torch.Tensor]:
        steps.append(f"predict {len(batch)}")
        return predict(predictor, batch, selection)

    def noted_finish(predictor: Classifier, *args: Any, **options: Any) -> list[ClassScore]:
        steps.append("finish")
        return finish(predictor, *args, **options)

    monkeypatch.setattr(Classifier, "predict_prepared", noted_predict)
    monkeypatch.setattr(Classifier, "finish", noted_finish)
    monkeypatch.setattr("models.predictor.BATCH_IMAGES", 2)

    async def work(engine: Engine) -> None:
        answer = await engine.predict("one", [pictures.png()] * 3, ALL, timeout_s=30)
        assert len(answer.images) == 3

    with_engine(tmp_path, work)
    assert steps == ["predict 2", "finish", "finish", "predict 1", "finish"]


def test_tiles_wait_as_images_do(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loading = SlowLoading(monkeypatch)
    large = pictures.encoded(pictures.left_bright().resize((900, 300)))

    async def work(engine: Engine) -> None:
        tiled = DetectionSelection(tile_px=300, tile_overlap=0.0)
        first = asyncio.create_task(engine.predict("one", [large, pictures.png()], tiled, timeout_s=30))
        await asyncio.to_thread(wait_until, lambda: loading.loads)
        assert engine.pending_images == (1 + 3) + 1  # the whole and its tiles, and a picture smaller than a tile
        with pytest.raises(EngineFull):
            await engine.predict("one", [large], tiled, timeout_s=30)
        with pytest.raises(TooManyTiles):
            await engine.predict("one", [large] * 3, tiled, timeout_s=30)
        loading.go_on.set()
        with pytest.raises(WrongTask, match="classification"):
            await first
        assert engine.pending_images == 0

    with_engine(tmp_path, work)
