"""What the engine needs of a device, in this process or in another: models in memory, and a lane for views."""

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
        """Where they are."""

    @property
    def budget_bytes(self) -> int:
        """What their weights may take together."""

    @property
    def size_bytes(self) -> int:
        """What they take."""

    @property
    def is_reachable(self) -> bool:
        """Whether the device can be asked right now."""

    @property
    def loading_s(self) -> float:
        """How long the model that is being loaded has been; 0 if none is. From any thread."""

    def all(self) -> list[LoadedModel]:
        """The least recently used first."""

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
        """Lets go of every model."""


class ViewLane(Protocol):
    """A device's line of views, as `Lane` is here and `RemoteLane` leads to an engine process."""

    @property
    def waiting(self) -> int:
        """Views that wait for the device."""

    @property
    def busy_s(self) -> float:
        """How long the device has been at work without an answer. From any thread."""

    def place(self, view: Tensor) -> Tensor:
        """The view, uint8 [C, h, w], where the device can take it from. In the decode pool. Raises EngineFull."""

    def submit(
        self, model: LoadedModel, view: Tensor, selection: Selection[Any], priority: Priority
    ) -> asyncio.Future[ViewResult]:
        """See Lane."""

    def finished(self, model: LoadedModel, outputs: int) -> None:
        """See Lane."""

    def close(self) -> None:
        """Takes no more."""


class MakeLane(Protocol):
    """Makes an engine's lane."""

    def __call__(self, *, observers: Sequence[Observer], after_batch: Callable[[int], None]) -> ViewLane: ...
