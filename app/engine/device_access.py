"""The interface of a device in this process or another: models in memory, and a lane for views."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from app.engine.lane import Priority, ViewResult
from app.engine.loaded_models import LoadedModel
from app.engine.model_source import ModelSource
from app.engine.observer import Observer
from models.precision import PrecisionChoice
from models.predictor import Selection


class ModelMemory(Protocol):
    """Models in memory, as `LoadedModels` keeps them here and `RemoteModels` sees them in an engine process."""

    @property
    def device(self) -> torch.device:
        """The device that holds the models."""

    @property
    def budget_bytes(self) -> int:
        """Limit for the weights of all models."""

    @property
    def size_bytes(self) -> int:
        """Size of the weights of all models."""

    @property
    def is_reachable(self) -> bool:
        """False while the engine process restarts."""

    @property
    def loading_s(self) -> float:
        """Seconds since the current load began; 0 if there is none. May be read from any thread."""

    def all(self) -> list[LoadedModel]:
        """All models in memory, the least recently used first."""

    def known(self, reference: str) -> ModelSource | None:
        """See LoadedModels."""

    def is_loading(self, reference: str, precision: PrecisionChoice = "auto") -> bool:
        """See LoadedModels."""

    def failing_s(self) -> dict[str, float]:
        """See LoadedModels."""

    def ready(self, reference: str, precision: PrecisionChoice = "auto") -> LoadedModel | None:
        """See LoadedModels."""

    async def get(self, reference: str, precision: PrecisionChoice = "auto") -> LoadedModel:
        """See LoadedModels."""

    async def load(self, reference: str) -> LoadedModel:
        """See LoadedModels."""

    async def load_beside(self, name: str, version: int) -> None:
        """See LoadedModels."""

    async def unload(self, reference: str) -> bool:
        """See LoadedModels."""

    def forget_lookups(self) -> None:
        """See LoadedModels."""

    async def close(self) -> None:
        """Releases every model."""


class ViewLane(Protocol):
    """The queue of views of a device: `Lane` in this process, `RemoteLane` to an engine process."""

    @property
    def waiting(self) -> int:
        """Views that wait for the device."""

    @property
    def busy_s(self) -> float:
        """How long the current batch has been running; 0 if none is. May be read from any thread."""

    def place(self, view: Tensor) -> Tensor:
        """The view, uint8 [C, h, w], where the device can read it. Called in the decode pool. Raises EngineFull."""

    def submit(
        self, model: LoadedModel, view: Tensor, selection: Selection[Any], priority: Priority
    ) -> asyncio.Future[ViewResult]:
        """See Lane."""

    def finished(self, model: LoadedModel, outputs: int) -> None:
        """See Lane."""

    def close(self) -> None:
        """Refuses new views."""


class MakeLane(Protocol):
    """Creates the lane of an engine."""

    def __call__(self, *, observers: Sequence[Observer], after_batch: Callable[[int], None]) -> ViewLane: ...
