"""Engines to test, without HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from app.engine.engine import Engine
from app.engine.loaded_models import LoadedModels
from app.engine.model_source import ModelFinder
from app.engine.observer import Observer
from models.architectures import catalog
from models.predictors.classification import Classifier, ClassSelection
from models.store.registry import Registry

ALL = ClassSelection()


def finder_of(home: Path) -> ModelFinder:
    """Of the models of `home`, on the CPU."""
    known = frozenset(catalog.names())
    return ModelFinder(
        Registry(home / "registry", reserved_names=known),
        architectures=known,
        weights_dir=home / "weights",
        allow_download=False,
        device=torch.device("cpu"),
    )


def engine_of(
    home: Path,
    *,
    budget_bytes: int = 10**9,
    pinned: Sequence[str] = (),
    max_pending_images: int = 8,
    observers: Sequence[Observer] = (),
    **changes: Any,
) -> Engine:
    """With the models of `home`, on the CPU. changes: of what an engine is made with otherwise."""
    return Engine(
        LoadedModels(finder_of(home), budget_bytes=budget_bytes, pinned=pinned),
        decode_threads=1,
        max_pending_images=max_pending_images,
        max_image_bytes=10**6,
        max_image_pixels=10**6,
        observers=observers,
        **changes,
    )


def with_engine(home: Path, work: Callable[[Engine], Coroutine[Any, Any, None]], **changes: Any) -> None:
    """Does `work` with `engine_of` it, and closes that."""

    async def run() -> None:
        engine = engine_of(home, **changes)
        try:
            await work(engine)
        finally:
            await engine.close()

    asyncio.run(run())


class Deadlines:
    """Deadlines of the event loop that pass when a test says so, in whatever state it has brought the engine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._running: list[asyncio.Timeout] = []
        original = asyncio.timeout

        def timeout(delay: float | None) -> asyncio.Timeout:
            self._running.append(original(delay))
            return self._running[-1]

        monkeypatch.setattr(asyncio, "timeout", timeout)

    def pass_now(self) -> None:
        """All deadlines that were set and not yet left are over."""
        now = asyncio.get_running_loop().time()
        for deadline in self._running:
            with suppress(RuntimeError):  # it was left already
                deadline.reschedule(now)


def note_batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that go through classifiers."""
    sizes: list[int] = []
    original = Classifier.predict_prepared

    def noted(predictor: Classifier, batch: torch.Tensor, selections: Sequence[ClassSelection]) -> list[torch.Tensor]:
        sizes.append(len(batch))
        return original(predictor, batch, selections)

    monkeypatch.setattr(Classifier, "predict_prepared", noted)
    return sizes
