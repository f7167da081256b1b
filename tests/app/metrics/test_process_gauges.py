"""What a process holds is told by several threads at once, and goes on being told after an error."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from prometheus_client import generate_latest

from app.engine.engine import Engine
from app.metrics.exposition import Exposition
from app.metrics.instruments import Instruments
from tests.app.exposed import Exposed
from tests.app.metrics.test_prediction_metrics import a_source
from tests.waiting import BRIEF_S, PATIENCE_S


def an_engine(*names: str) -> Engine:
    """As far as the gauges look at it: with models of those names in memory."""
    loaded = [SimpleNamespace(source=a_source(name), predictor=SimpleNamespace(size_bytes=7)) for name in names]
    models = SimpleNamespace(all=lambda: loaded, budget_bytes=100, loading_s=0.0, device=torch.device("cpu"))
    return cast("Engine", SimpleNamespace(models=models, pending_images=0, max_pending_images=1, busy_s=0.0))


def test_threads_that_tell_at_once_do_not_disturb_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    instruments = Instruments(directory=None)
    gauges = instruments.gauges
    other = threading.Thread(target=gauges.set_to, args=(an_engine("bees", "wasps"),))
    gauge = gauges._model_memory

    def labels(*values: str) -> Any:
        if other.ident is None:  # the first model is being told of: another thread begins with models of its own
            other.start()
            other.join(BRIEF_S)  # it goes as far as it may
        return gauge.labels(*values)

    monkeypatch.setattr(gauges, "_model_memory", SimpleNamespace(labels=labels))
    gauges.set_to(an_engine("ants"))
    other.join()
    told = Exposed.read(generate_latest(instruments.registry).decode())
    sizes = {name: told.value("fovea_model_memory_bytes", model=name) for name in ("ants", "bees", "wasps")}
    assert sizes == {"ants": 0, "bees": 7, "wasps": 7}


def test_other_processes_are_told_again_after_an_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("app.metrics.exposition._WRITTEN_OUT_EVERY_S", 0)
    errors = [OSError("no space left")]

    async def work() -> None:
        told = asyncio.Event()

        def set_to(_: Engine) -> None:
            if errors:
                raise errors.pop()

        instruments = SimpleNamespace(gauges=SimpleNamespace(set_to=set_to), shared=SimpleNamespace(write_out=told.set))
        exposition = Exposition(cast("Any", instruments), engine=an_engine(), jobs=cast("Any", None))
        telling = asyncio.create_task(exposition.keep_others_informed())
        waiting = asyncio.create_task(told.wait())
        await asyncio.wait([telling, waiting], return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE_S)
        assert told.is_set()
        assert not telling.done()
        telling.cancel()
        with suppress(asyncio.CancelledError):
            await telling

    asyncio.run(work())
    assert "no space left" in caplog.text
