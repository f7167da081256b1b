"""One core that decodes and predicts: turns in one thread, batches of what is there to decode, and never a stop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from app.engine import setup as engine_setup
from app.engine.answers import Answer
from app.engine.batch import run_batch
from app.engine.decode_pool import DecodePool
from app.engine.engine import Engine
from app.engine.errors import WrongTask
from app.engine.lane import Priority
from app.engine.turn_taking import TurnTakingLane
from app.settings import ApiSettings
from models.errors import ImageError
from models.images.decode import decode_image
from models.predictors.classification import Classifier, ClassSelection
from models.predictors.detection import DetectionSelection
from models.store.registry import Registry
from tests.app import pictures
from tests.app.compass import publish_compass
from tests.app.engines import ALL, note_batches, with_engine
from tests.waiting import PATIENCE_S, wait_until

LONG_S = 60.0  # so long did the model's last batch take, as far as the lane knows


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """With one model."""
    publish_compass(Registry(tmp_path / "registry"), "one")
    return tmp_path


def with_one_core(
    home: Path, work: Callable[[Engine], Coroutine[Any, Any, None]], *, best_batch: int = 4, batch_s: float = LONG_S
) -> None:
    """batch_s: what a batch took lately, which bounds how long a view waits for company."""

    async def prepared(engine: Engine) -> None:
        model = await engine.models.get("one")
        model.best_batch, model.batch_s = best_batch, batch_s
        await work(engine)

    with_engine(home, prepared, has_one_core=True)


async def ask(engine: Engine, image: bytes | None = None, priority: Priority = "interactive") -> Answer[Any]:
    return await engine.predict("one", [image or pictures.png()], ALL, timeout_s=PATIENCE_S, priority=priority)


async def held(engine: Engine) -> tuple[threading.Event, asyncio.Task[None]]:
    """The one thread is busy until the event is set."""
    began, release = threading.Event(), threading.Event()

    def hold() -> None:
        began.set()
        assert release.wait(PATIENCE_S)

    task = asyncio.create_task(engine._decoders.run("finish", hold))
    await asyncio.to_thread(began.wait, PATIENCE_S)
    return release, task


class Decoding:
    """Every image waits to be decoded until it is let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._allowed = threading.Semaphore(0)
        original = Engine._prepare

        def prepare(engine: Engine, *args: Any) -> Any:
            assert self._allowed.acquire(timeout=PATIENCE_S)
            return original(engine, *args)

        monkeypatch.setattr(Engine, "_prepare", prepare)

    def let(self, pictures: int) -> None:
        self._allowed.release(pictures)


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, condition)


async def until_first_ended(engine: Engine, decoding: Decoding, ended: list[str]) -> None:
    """With two images decoded: its own, and the one that the thread takes before the event loop hears of it."""
    decoding.let(1)
    await until(lambda: engine.busy_s > 0 or bool(ended))  # the network is next, or has run already
    decoding.let(1)
    await until(lambda: bool(ended))


async def until_waiting(pool: DecodePool, calls: int) -> None:
    await until(lambda: pool.waiting == calls)


def test_batch_grows_while_there_is_more_to_decode(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = note_batches(monkeypatch)
    # A batch takes a millisecond, and the lane would wait no longer for the next image.
    monkeypatch.setattr("app.engine.lane.run_batch", lambda *batch: replace(run_batch(*batch), elapsed_s=LONG_S))

    async def work(engine: Engine) -> None:
        release, holding = await held(engine)
        asked = [asyncio.create_task(ask(engine)) for _ in range(6)]
        await until_waiting(engine._decoders, 6)
        release.set()
        await asyncio.gather(holding, *asked)
        assert sizes == [4, 2]

    with_one_core(home, work)


def test_picture_whose_result_is_known_is_waited_for_until_it_has_come(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = note_batches(monkeypatch)

    async def work(engine: Engine) -> None:
        model = await engine.models.get("one")
        (view,) = model.predictor.prepare(decode_image(pictures.png()), ALL)
        assert isinstance(engine._lane, TurnTakingLane)
        first = engine._lane.submit(model, view, ALL, "interactive")
        await asyncio.sleep(0)
        engine._lane._put_off()  # the thread is idle from here on
        await asyncio.sleep(0)
        second = engine._lane.submit(model, view, ALL, "interactive")
        await asyncio.gather(first, second)
        assert sizes == [2]

    with_one_core(home, work)


def test_lone_picture_waits_for_nobody(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = note_batches(monkeypatch)

    async def work(engine: Engine) -> None:
        for _ in range(3):
            await ask(engine)
        assert sizes == [1, 1, 1]

    with_one_core(home, work)


def test_picture_waits_for_company_no_longer_than_a_batch_takes(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = note_batches(monkeypatch)
    decoding = Decoding(monkeypatch)

    async def work(engine: Engine) -> None:
        asked = [asyncio.create_task(ask(engine)) for _ in range(3)]
        decoding.let(1)
        await until(lambda: engine.busy_s > 0 or bool(sizes))  # the network is next, or has run already
        decoding.let(1)  # the thread is at it
        await until(lambda: sizes[:1] == [1])
        decoding.let(1)
        await asyncio.gather(*asked)

    with_one_core(home, work, batch_s=0.0)


@pytest.mark.parametrize("how", ["broken", "cancelled"])
def test_company_that_never_comes_holds_nobody_up(home: Path, how: str) -> None:
    async def work(engine: Engine) -> None:
        release, holding = await held(engine)
        good = asyncio.create_task(ask(engine))
        await until_waiting(engine._decoders, 1)
        other = asyncio.create_task(ask(engine, b"no picture at all" if how == "broken" else None))
        await until_waiting(engine._decoders, 2)
        if how == "cancelled":
            other.cancel()
            with pytest.raises(asyncio.CancelledError):
                await other
        release.set()
        answer = await good
        assert not isinstance(answer.images[0], Exception)
        if how == "broken":
            assert isinstance((await other).images[0], ImageError)
        await holding

    with_one_core(home, work)


def test_interactive_picture_does_not_wait_for_bulk_ones_to_be_decoded(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []
    decoding = Decoding(monkeypatch)

    async def note(engine: Engine, priority: Priority) -> None:
        await ask(engine, priority=priority)
        ended.append(priority)

    async def work(engine: Engine) -> None:
        release, holding = await held(engine)
        asked = [asyncio.create_task(note(engine, "bulk")) for _ in range(4)]
        asked.append(asyncio.create_task(note(engine, "interactive")))
        await until_waiting(engine._decoders, 5)
        release.set()
        await until_first_ended(engine, decoding, ended)
        assert ended[0] == "interactive"
        decoding.let(3)
        await asyncio.gather(holding, *asked)

    with_one_core(home, work)


def test_company_of_another_model_holds_nobody_up_for_long(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_compass(Registry(home / "registry"), "two")
    decoding = Decoding(monkeypatch)
    ended: list[str] = []

    async def note(engine: Engine, model: str) -> None:
        await engine.predict(model, [pictures.png()], ALL, timeout_s=PATIENCE_S)
        ended.append(model)

    async def work(engine: Engine) -> None:
        (await engine.models.get("two")).batch_s = LONG_S  # and "one" is quick
        release, holding = await held(engine)
        asked = [asyncio.create_task(note(engine, "one"))]
        await until_waiting(engine._decoders, 1)
        asked += [asyncio.create_task(note(engine, "two")) for _ in range(3)]
        await until_waiting(engine._decoders, 4)
        release.set()
        await until_first_ended(engine, decoding, ended)
        assert ended[0] == "one"
        decoding.let(2)
        await asyncio.gather(holding, *asked)

    with_one_core(home, work, batch_s=0.0)


def test_request_of_tiles_is_judged_at_once_while_the_core_is_busy(home: Path) -> None:
    async def work(engine: Engine) -> None:
        release, holding = await held(engine)
        with pytest.raises(WrongTask):  # after its tiles were counted
            await engine.predict("one", [pictures.png()], DetectionSelection(tile_px=300), timeout_s=PATIENCE_S)
        release.set()
        await holding

    with_one_core(home, work)


def test_closed_engine_gives_up_what_waits_for_the_network(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoding = Decoding(monkeypatch)

    async def work(engine: Engine) -> None:
        asked = [asyncio.create_task(ask(engine)) for _ in range(2)]
        await until_waiting(engine._decoders, 1)  # the thread is at the first one
        decoding.let(1)
        await until(lambda: engine._lane.waiting == 1)
        await engine.close()
        decoding.let(1)  # the other one is decoded, and comes too late
        for task in asked:
            with pytest.raises(asyncio.CancelledError):
                await task

    with_one_core(home, work)


def test_network_is_never_interrupted_by_a_decoder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[str] = set()
    original = Classifier.predict_prepared

    def noted(predictor: Classifier, batch: torch.Tensor, selections: Sequence[ClassSelection]) -> list[torch.Tensor]:
        threads.add(threading.current_thread().name)
        return original(predictor, batch, selections)

    monkeypatch.setattr(Classifier, "predict_prepared", noted)

    async def work(engine: Engine) -> None:
        threads.add(await engine._decoders.run("bulk", lambda: threading.current_thread().name))
        await asyncio.gather(*(ask(engine) for _ in range(8)))
        assert len(threads) == 1

    with_one_core(home, work)


def test_closed_engine_gives_up_what_waits(home: Path) -> None:
    async def work(engine: Engine) -> None:
        release, holding = await held(engine)
        asked = asyncio.create_task(ask(engine))
        await until_waiting(engine._decoders, 1)
        await engine.close()
        with pytest.raises(asyncio.CancelledError):
            await asked
        release.set()
        await holding

    with_one_core(home, work)


@pytest.mark.parametrize(
    ("cores", "processes", "decode_threads", "torch_threads", "turns"),
    [
        (2, 2, 0, 1, True),
        (1, 1, 0, 1, True),
        (8, 1, 1, 1, False),  # the operator spares cores, which are there all the same
        (8, 2, 0, 4, False),
        (2, 2, 3, 1, False),
    ],
)
def test_both_have_turns_only_where_a_process_has_one_core(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    processes: int,
    decode_threads: int,
    torch_threads: int,
    turns: bool,
) -> None:
    monkeypatch.setattr(engine_setup, "usable_cores", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: torch_threads)
    settings = ApiSettings(_env_file=None, home=home, device="cpu", processes=processes, decode_threads=decode_threads)

    async def work() -> None:
        engine, builds = engine_setup.make_engine(settings, Registry(home / "registry"), connection=None, observers=())
        assert builds is not None
        assert isinstance(engine._lane, TurnTakingLane) == turns
        await builds.close()
        await engine.close()

    asyncio.run(work())
