"""The engine in a process of its own: the same answers, and the same models for all that ask."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.engine.answers import ImageAnswer
from app.engine.engine import Engine
from app.processes.engine_process import EngineProcess
from models.errors import CorruptVersion, UnknownModel
from models.predictors import loading
from models.predictors.classification import ClassSelection
from models.predictors.detection import DetectionSelection
from models.predictors.segmentation import SegmentationSelection
from models.store.registry import Registry
from tests.app import pictures
from tests.app.compass import publish_compass
from tests.app.engine_processes import engine_at, local_engine, settings_of, until
from tests.app.finders import finders_from_version, png
from tests.waiting import PATIENCE_S

SCENE = png(300, 200, ("red", 20, 30, 90, 110), ("blue", 150, 20, 280, 180))
ALL = ClassSelection()


@pytest.fixture(scope="module")
def engine_process(finders_home: Path) -> Iterator[EngineProcess]:
    """One that stays up for all tests that do not kill it."""
    program = [sys.executable, "-m", "tests.app.finders_engine"]
    with Loop() as loop:
        process = EngineProcess(settings_of(finders_home), program=program)
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
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()


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
    finders_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    image: bytes,
    selection: Any,
) -> None:
    async def work() -> None:
        async with engine_at(engine_process.path, finders_home) as engine, local_engine(finders_home) as here:
            there = await engine.predict(model, [image, b"nothing"], selection, timeout_s=PATIENCE_S)
            expected = await here.predict(model, [image, b"nothing"], selection, timeout_s=PATIENCE_S)
            assert isinstance(there.images[0], ImageAnswer)
            assert there.images[0] == expected.images[0]
            assert type(there.images[1]) is type(expected.images[1])
            assert (there.backend, there.precision) == (expected.backend, expected.precision)
            assert there.model == replace(expected.model, load=there.model.load)

    monkeypatch.setattr(loading, "load_version", finders_from_version())
    asyncio.run(work())


def test_pictures_of_many_tiles_take_their_memory_and_give_it_back(
    engine_process: EngineProcess, finders_home: Path
) -> None:
    async def work() -> None:
        async with engine_at(engine_process.path, finders_home) as engine:
            large = png(1600, 1200, ("red", 100, 100, 700, 900))
            selection = DetectionSelection(tile_px=400, tile_overlap=0.0)
            answers = await asyncio.gather(
                *(engine.predict("masks", [large], selection, timeout_s=PATIENCE_S) for _ in range(3))
            )
            for answer in answers:
                assert isinstance(answer.images[0], ImageAnswer)
                assert len(answer.images[0].prediction) == 1
            arena = engine._lane._connection.arena  # type: ignore[attr-defined]
            await until(lambda: arena.used_bytes == 0)
            assert engine.pending_images == 0

    asyncio.run(work())


def test_models_are_seen_as_the_engine_process_has_them(engine_process: EngineProcess, finders_home: Path) -> None:
    async def work() -> None:
        async with (
            engine_at(engine_process.path, finders_home) as one,
            engine_at(engine_process.path, finders_home) as other,
        ):
            await one.models.load("compass")
            await until(lambda: "compass/1" in [model.source.reference for model in other.models.all()])
            assert one.models.size_bytes > 0
            assert one.models.budget_bytes > 0
            assert await other.models.unload("compass")
            assert not await one.models.unload("compass")
            await until(lambda: "compass/1" not in [model.source.reference for model in one.models.all()])
            with pytest.raises(UnknownModel):
                await one.models.get("nothing")
            await one.predict("compass", [pictures.png()], ALL, timeout_s=PATIENCE_S)

    asyncio.run(work())


def test_version_that_could_not_be_loaded_is_known_to_all(engine_process: EngineProcess, finders_home: Path) -> None:
    damaged = publish_compass(Registry(finders_home / "registry"), "damaged")
    damaged.state_dict_path.write_bytes(b"\0" * damaged.manifest.size_bytes)

    async def work() -> None:
        async with (
            engine_at(engine_process.path, finders_home) as one,
            engine_at(engine_process.path, finders_home) as other,
        ):
            with pytest.raises(CorruptVersion):
                await one.models.get("damaged")
            await until(lambda: "damaged/1" in other.models.failing_s())

    asyncio.run(work())


def test_promoted_version_answers_everywhere(engine_process: EngineProcess, finders_home: Path) -> None:
    registry = Registry(finders_home / "registry")
    publish_compass(registry, "moving")
    registry.set_alias("moving", "production", 1)

    async def work() -> None:
        async with (
            engine_at(engine_process.path, finders_home) as one,
            engine_at(engine_process.path, finders_home) as other,
        ):

            async def version_that_answers(engine: Engine) -> int | None:
                return (await engine.predict("moving", [pictures.png()], ALL, timeout_s=PATIENCE_S)).model.version

            assert [await version_that_answers(engine) for engine in (one, other)] == [1, 1]
            publish_compass(registry, "moving", gain=-2.0)
            await one.models.load_beside("moving", 2)
            registry.set_alias("moving", "production", 2)
            one.models.forget_lookups()
            assert await version_that_answers(one) == 2
            async with asyncio.timeout(PATIENCE_S):
                while await version_that_answers(other) != 2:
                    pass

    asyncio.run(work())
