"""The models in the engine process, as an HTTP process sees them.

The engine process decides what to load and what to evict. It sends the list of its models whenever that changes. A
lookup is repeated when it is old.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import torch

from app.engine.loaded_models import LoadedModel, newest_of
from app.engine.lookups import Lookups
from app.engine.model_source import ModelSource
from app.engine.remote.connection import EngineConnection
from app.engine.remote.remote_predictor import RemoteBackend, remote_predictor
from app.engine.remote.wire import Message
from models.precision import PrecisionChoice
from models.predictor import AnyPredictor


class RemoteModels:
    """LoadedModels in another process. Use it from the event loop of its connection."""

    def __init__(self, connection: EngineConnection, *, device: torch.device, lookup_every_s: float = 0.0) -> None:
        """device: that of the engine. lookup_every_s: see Lookups."""
        self._connection = connection
        self._device = device
        self._budget_bytes = 0
        self._described: dict[str, LoadedModel] = {}  # by digest
        self._loaded: list[LoadedModel] = []  # the least recently used first; replaced as a whole
        self._failing: dict[str, float] = {}  # until when
        self._lookups: Lookups[tuple[str, PrecisionChoice], LoadedModel] = Lookups(
            self._look_up, holds_s=lookup_every_s
        )
        connection.on_models = self._note
        connection.on_lost = self._forget

    @property
    def device(self) -> torch.device:
        """The device that the models are on."""
        return self._device

    @property
    def budget_bytes(self) -> int:
        """The memory that all weights together may take; 0 until the engine has sent it."""
        return self._budget_bytes

    @property
    def size_bytes(self) -> int:
        """The memory that all weights take."""
        return sum(model.predictor.size_bytes for model in self.all())

    @property
    def is_reachable(self) -> bool:
        """True while an engine process is connected."""
        return self._connection.is_open

    @property
    def loading_s(self) -> float:
        """Seconds that the engine has spent on loading a model so far, or 0 if few. Any thread may ask."""
        return self._connection.long_s("load")

    def all(self) -> list[LoadedModel]:
        """Lists the models that the engine last reported."""
        return list(self._loaded)

    def known(self, reference: str) -> ModelSource | None:
        """See LoadedModels.known."""
        model = self._lookups.known((reference, "auto"))
        return model.source if model else newest_of(reference, self._loaded)

    def is_loading(self, reference: str, precision: PrecisionChoice = "auto") -> bool:
        """See LoadedModels. This process cannot see loads, so any model that is not in memory counts."""
        model = self._lookups.known((reference, precision))
        source = model.source if model else self.known(reference) if precision == "auto" else None
        return source is None or all(loaded.source.digest != source.digest for loaded in self._loaded)

    def failing_s(self) -> dict[str, float]:
        """See LoadedModels."""
        now = time.monotonic()
        return {reference: until - now for reference, until in self._failing.items() if now < until}

    def ready(self, reference: str, precision: PrecisionChoice = "auto") -> LoadedModel | None:
        """See LoadedModels."""
        model = self._lookups.fresh((reference, precision))
        if model is not None:
            model.last_used_at = datetime.now(UTC)
        return model

    async def get(self, reference: str, precision: PrecisionChoice = "auto") -> LoadedModel:
        """See LoadedModels.get. Also raises EngineRestarting."""
        model = await self._lookups.get((reference, precision))
        model.last_used_at = datetime.now(UTC)
        return model

    async def load(self, reference: str) -> LoadedModel:
        """See LoadedModels.load. Also raises EngineRestarting."""
        self._lookups.forget((reference, "auto"))
        return await self._ask_for({"do": "load", "reference": reference})

    async def load_beside(self, name: str, version: int) -> None:
        """See LoadedModels.load_beside. Also raises EngineRestarting."""
        await self._connection.ask({"do": "load_beside", "name": name, "version": version}, lambda *_: None)

    async def unload(self, reference: str) -> bool:
        """See LoadedModels.unload. Also raises EngineRestarting."""
        self._lookups.forget()
        was_there: bool = await self._connection.ask(
            {"do": "unload", "reference": reference}, lambda answer, _: answer["value"]
        )
        return was_there

    def forget_lookups(self) -> None:
        """See LoadedModels."""
        self._lookups.forget()
        self._connection.tell({"do": "forget_lookups"})

    async def close(self) -> None:
        """Closes the connection. The engine process keeps its models for the other HTTP processes."""
        self._lookups.close()
        self._connection.close()

    async def _look_up(self, key: tuple[str, PrecisionChoice]) -> LoadedModel:
        reference, precision = key
        return await self._ask_for({"do": "get", "reference": reference, "precision": precision})

    async def _ask_for(self, question: Message) -> LoadedModel:
        asking: asyncio.Future[LoadedModel] = self._connection.ask(
            question,
            lambda answer, _: self._update(answer["value"]),
            unwanted=lambda answer: self._update(answer["value"]),  # the engine describes a model once only
        )
        return await asking

    def _note(self, message: Message) -> None:
        """Reads which models are loaded and which could not be."""
        self._budget_bytes = message["budget_bytes"]
        now = time.monotonic()
        self._failing = {reference: now + seconds for reference, seconds in message["failing_s"].items()}
        self._loaded = [self._update(entry) for entry in message["models"]]
        self._described = {model.source.digest: model for model in self._loaded}

    def _forget(self) -> None:
        """Forgets all models: the next engine process starts without any."""
        self._loaded = []
        self._failing.clear()
        self._described.clear()
        self._lookups.forget()

    def _update(self, entry: Message) -> LoadedModel:
        """Updates the model of an entry, or makes it from the description that its first entry carries."""
        model = self._described.get(entry["digest"])
        if model is None:
            description = entry["description"]
            backend = RemoteBackend(name=entry["backend"], precision=entry["precision"], size_bytes=entry["size_bytes"])
            model = LoadedModel(
                source=ModelSource(
                    name=description["name"],
                    version=description["version"],
                    architecture=description["architecture"],
                    digest=entry["digest"],
                    size_bytes=description["file_bytes"],
                    load=_load_elsewhere,
                ),
                predictor=remote_predictor(description["predictor"], backend),
                best_batch=entry["best_batch"],
                loaded_at=datetime.fromisoformat(entry["loaded_at"]),
            )
            self._described[entry["digest"]] = model
        model.best_batch, model.is_pinned = entry["best_batch"], entry["is_pinned"]
        model.last_used_at = max(model.last_used_at, datetime.fromisoformat(entry["last_used_at"]))
        known = model.predictor.backend
        assert isinstance(known, RemoteBackend)
        known.name, known.precision, known.size_bytes = entry["backend"], entry["precision"], entry["size_bytes"]
        return model


def _load_elsewhere() -> AnyPredictor:
    msg = "only the engine process loads models"
    raise RuntimeError(msg)
