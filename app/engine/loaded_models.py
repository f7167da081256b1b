"""Models in memory: found by reference, loaded once for all requests, evicted least recently used first.

References are looked up regularly, so a moved alias takes effect by itself. While the new version is being loaded, the
previous one answers: no request fails or waits for the swap.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

import torch

from app.engine.errors import OutOfDeviceMemory
from app.engine.loading_thread import LoadingThread
from app.engine.lookups import Lookups
from app.engine.malloc_trim import return_memory
from app.engine.model_source import ModelFinder, ModelSource
from app.engine.warm_up import BestBatches
from models.backends import cuda_graphs
from models.backends.backend import Backend
from models.backends.views import largest_batch
from models.errors import ModelsError
from models.precision import PrecisionChoice
from models.predictor import AnyPredictor

log = logging.getLogger(__name__)

_FAILED_FOR_S = 30.0  # after a failure, requests do not try to load again for this long
_MOST_FAILED = 1000
EXACT = " float32"  # suffix of the digest of a model that is kept in float32 in addition


@dataclass(eq=False, kw_only=True)
class LoadedModel:
    """A model that can predict."""

    source: ModelSource
    predictor: AnyPredictor
    best_batch: int  # views
    batch_s: float = 0.0  # duration of the last batch
    is_pinned: bool = False
    loaded_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    last_used_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def batch_size(self, shape: torch.Size) -> int:
        """The batch size for views of that shape, [C, h, w]."""
        return min(self.best_batch, largest_batch(shape))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Failed:
    """A failed load, and when the next try is allowed."""

    reference: str
    error: ModelsError
    until: float


class LoadedModels:
    """The models on one device, within `budget_bytes`. Used from one event loop."""

    def __init__(
        self,
        finder: ModelFinder,
        *,
        budget_bytes: int,
        pinned: Sequence[str] = (),
        lookup_every_s: float = 0.0,
    ) -> None:
        """pinned: references whose models are never evicted. lookup_every_s: see Lookups."""
        self.on_load: Callable[[LoadedModel], None] = lambda _: None  # called with every loaded model
        self._finder = finder
        self.budget_bytes = budget_bytes
        self._pins: dict[str, str] = dict.fromkeys(pinned, "")  # the digest of each pinned reference
        self._loaded: OrderedDict[str, LoadedModel] = OrderedDict()  # by digest, least recently used first
        self._loading: dict[str, asyncio.Task[LoadedModel]] = {}
        self._lookups: Lookups[str, ModelSource] = Lookups(
            self._look_up, holds_s=lookup_every_s, on_found=self._note_meaning
        )
        self._answering: dict[str, str] = {}  # the digest that last answered for a name or alias
        self._failed: dict[str, _Failed] = {}  # by digest
        self._loader = LoadingThread()
        self._best_batches = BestBatches()  # used by the loading thread
        # Called when a model was loaded, evicted, failed, or changed its backend.
        self.on_change: Callable[[], None] = lambda: None

    @property
    def device(self) -> torch.device:
        """The device that holds the models."""
        return self._finder.device

    @property
    def is_reachable(self) -> bool:
        """True: the models are in this process."""
        return True

    @property
    def size_bytes(self) -> int:
        """Size of the weights of all models."""
        return sum(model.predictor.size_bytes for model in self._loaded.values())

    @property
    def loading_s(self) -> float:
        """Seconds since the current load began; 0 if there is none. May be read from any thread."""
        return self._loader.busy_s

    def all(self) -> list[LoadedModel]:
        """All models in memory, the least recently used first."""
        return list(self._loaded.values())

    def find(self, digest: str) -> LoadedModel | None:
        """The model with that digest if it is in memory; marks it as used."""
        model = self._loaded.get(digest)
        if model is not None:
            self._loaded.move_to_end(digest)
            model.last_used_at = datetime.now(UTC)
        return model

    def known(self, reference: str) -> ModelSource | None:
        """The last found source of `reference`; if it was never looked up, a loaded model of that name."""
        return self._lookups.known(reference) or newest_of(reference, self._loaded.values())

    def is_loading(self, reference: str, precision: PrecisionChoice = "auto") -> bool:
        """True while the last found source of `reference` is being loaded."""
        source = self.known(reference)
        if source is None:
            return False
        wanted = {source.digest, f"{source.digest}{EXACT}"} if precision == "float32" else {source.digest}
        return not wanted.isdisjoint(self._loading)

    def failing_s(self) -> dict[str, float]:
        """Versions whose load failed, with the seconds until the next try is allowed."""
        now = time.monotonic()
        failed = (failed for digest, failed in self._failed.items() if not digest.endswith(EXACT))
        return {one.reference: one.until - now for one in failed if now < one.until}

    def ready(self, reference: str, precision: PrecisionChoice = "auto") -> LoadedModel | None:
        """The result of `get` if it needs no waiting, else None."""
        source = self._lookups.fresh(reference)
        loaded = self._loaded.get(source.digest) if source else None
        if loaded is None or (precision == "float32" and loaded.predictor.backend.precision != precision):
            return None
        self._note_use(reference, loaded)
        return loaded

    async def get(self, reference: str, precision: PrecisionChoice = "auto") -> LoadedModel:
        """The model that `reference` means, loaded if needed; during a swap, the previous version.

        precision: `float32` loads a model that runs in a lower precision a second time.
        A caller that stops waiting does not stop the load. Raises ModelsError, OutOfDeviceMemory.
        """
        source = await self._lookups.get(reference)
        loaded = self._loaded.get(source.digest)
        if loaded is None:
            loading = self._load_once(source)
            loaded = self._loaded.get(self._answering.get(reference, ""))
            if loaded is None:
                loaded = await asyncio.shield(loading)
        if precision == "float32" and loaded.predictor.backend.precision != precision:
            return await self._get_exact(loaded.source)
        self._note_use(reference, loaded)
        return loaded

    def _note_use(self, reference: str, loaded: LoadedModel) -> None:
        if loaded.source.digest in self._loaded:  # it may have been evicted during the wait
            if "/" not in reference:  # a version number never changes its meaning
                self._answering[reference] = loaded.source.digest
            self._loaded.move_to_end(loaded.source.digest)
        loaded.last_used_at = datetime.now(UTC)

    async def _get_exact(self, source: ModelSource) -> LoadedModel:
        exact = replace(source, digest=f"{source.digest}{EXACT}")
        loaded = self._loaded.get(exact.digest)
        if loaded is None:
            loaded = await asyncio.shield(self._load_once(exact))
        if exact.digest in self._loaded:
            self._loaded.move_to_end(exact.digest)
        loaded.last_used_at = datetime.now(UTC)
        return loaded

    def adopt(self, model: LoadedModel, backend: Backend) -> None:
        """Makes the model run on `backend`, and measures its best batch size in the background."""
        model.predictor.backend = backend
        self.on_change()
        measuring = self._loader.run(
            model.source.reference, partial(self._best_batches.warm_up, model.source, model.predictor)
        )
        measuring.add_done_callback(lambda done: self._note_best_batch(model, done))

    def _note_best_batch(self, model: LoadedModel, measuring: asyncio.Future[int]) -> None:
        if measuring.cancelled():
            return
        if error := measuring.exception():
            log.warning("the best batch of %s was not measured anew: %s", model.source.reference, error)
            return
        model.best_batch = measuring.result()
        self.on_change()
        backend = model.predictor.backend
        log.info(
            "%s runs on %s in %s, batches of up to %d",
            model.source.reference,
            backend.name,
            backend.precision,
            model.best_batch,
        )

    async def load(self, reference: str) -> LoadedModel:
        """Looks up `reference` and loads its model. Raises ModelsError, OutOfDeviceMemory."""
        self._lookups.forget(reference)
        source = await self._lookups.get(reference)
        loaded = self._loaded.get(source.digest)
        if loaded is None:
            loaded = await asyncio.shield(self._load_once(source))
        return loaded

    async def load_beside(self, name: str, version: int) -> None:
        """Loads the version if another version of the model is in memory. A failure is logged.

        The other version stays, even beyond the budget: it answers until the alias has moved.
        """
        if any(model.source.name == name for model in self._loaded.values()):
            with contextlib.suppress(ModelsError, OutOfDeviceMemory):
                await self.load(f"{name}/{version}")

    async def unload(self, reference: str) -> bool:
        """Evicts the model, pinned or not. Returns whether it was in memory. Raises ModelsError."""
        source = await self._lookups.get(reference)
        loaded = [self._loaded.get(digest) for digest in (source.digest, f"{source.digest}{EXACT}")]
        for model in loaded:
            if model is not None:
                self._drop(model)
        return any(loaded)

    def forget_lookups(self) -> None:
        """Forgets all lookups, after names, versions or aliases were changed here."""
        self._lookups.forget()

    async def close(self) -> None:
        """Releases every model."""
        self._lookups.close()
        for task in self._loading.values():
            task.cancel()
        self._loader.close()
        self._loaded.clear()

    async def _look_up(self, reference: str) -> ModelSource:
        return await asyncio.to_thread(self._finder.find, reference)

    def _note_meaning(self, reference: str, source: ModelSource) -> None:
        if self._pins.get(reference, source.digest) != source.digest:
            self._pin(reference, source.digest)

    def _pin(self, reference: str, digest: str) -> None:
        """Moves the pin of a reference to the model that it means now."""
        self._pins[reference] = digest
        for model in self._loaded.values():
            model.is_pinned = model.source.digest in self._pins.values()

    async def _look_at_pins(self) -> None:
        """Looks up the pinned references: an alias may have moved without any request for it."""
        for reference in self._pins:
            try:
                await self._lookups.get(reference)
            except ModelsError:
                self._pin(reference, "")

    def _load_once(self, source: ModelSource) -> asyncio.Task[LoadedModel]:
        task = self._loading.get(source.digest)
        if task is None:
            task = asyncio.create_task(self._load(source), name=f"load {source.reference}")
            self._loading[source.digest] = task
            task.add_done_callback(lambda done: self._end_loading(source, done))
        return task

    def _end_loading(self, source: ModelSource, task: asyncio.Task[LoadedModel]) -> None:
        self._loading.pop(source.digest, None)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, ModelsError) and source.digest not in self._failed:
            log.warning("%s was not loaded: %s", source.reference, error)
            if len(self._failed) >= _MOST_FAILED:
                self._failed.clear()
            self._failed[source.digest] = _Failed(
                reference=source.reference, error=error, until=time.monotonic() + _FAILED_FOR_S
            )
            self.on_change()

    async def _load(self, source: ModelSource) -> LoadedModel:
        """Evicts other models only after this one has loaded, so a failed load evicts nothing."""
        failed = self._failed.get(source.digest)
        if failed is not None and time.monotonic() < failed.until:
            raise failed.error.with_traceback(None)
        self._failed.pop(source.digest, None)
        await self._look_at_pins()
        self._check_fits(source)
        started_at = time.monotonic()
        try:
            loaded = await self._loader.run(source.reference, partial(_load_now, source, self._best_batches))
        except OutOfDeviceMemory:
            self._make_room(source.size_bytes, beside=source.name)
            loaded = await self._loader.run(source.reference, partial(_load_now, source, self._best_batches))
        self._make_room(loaded.predictor.size_bytes, beside=source.name)
        loaded.is_pinned = source.digest in self._pins.values()
        self._loaded[source.digest] = loaded
        log.info(
            "loaded %s in %.1f s, batches of up to %d",
            source.reference,
            time.monotonic() - started_at,
            loaded.best_batch,
        )
        if not source.digest.endswith(EXACT):
            self.on_load(loaded)
        self.on_change()
        return loaded

    def _check_fits(self, source: ModelSource) -> None:
        """Raises OutOfDeviceMemory if the model will never fit beside what is pinned."""
        pinned = (model for model in self._loaded.values() if model.is_pinned)
        pinned_bytes = sum(model.predictor.size_bytes for model in pinned)
        if pinned_bytes + source.size_bytes > self.budget_bytes:
            raise OutOfDeviceMemory(
                f"{source.reference} needs {source.size_bytes} bytes, and of FOVEA_MODEL_MEMORY, {self.budget_bytes}, "
                f"pinned models hold {pinned_bytes}.",
                hint="Raise FOVEA_MODEL_MEMORY, or pin fewer models.",
            )

    def _make_room(self, size_bytes: int, *, beside: str) -> None:
        """Evicts the least recently used models until there is room.

        beside: the version of this model that answers now stays, so that no request waits during a swap.
        """
        answering = set(self._answering.values())
        for model in self.all():
            if self.size_bytes + size_bytes <= self.budget_bytes:
                break
            if not model.is_pinned and not (model.source.name == beside and model.source.digest in answering):
                self._drop(model)

    def _drop(self, model: LoadedModel) -> None:
        """Evicts a model. Running requests keep it until they are answered; then its memory is returned."""
        loop = asyncio.get_running_loop()
        weakref.finalize(model, _return_memory_soon, loop)
        del self._loaded[model.source.digest]
        self._answering = {name: digest for name, digest in self._answering.items() if digest != model.source.digest}
        self.on_change()
        log.info("unloaded %s: models may take %d MiB", model.source.reference, self.budget_bytes // 1024**2)


def newest_of(reference: str, models: Iterable[LoadedModel]) -> ModelSource | None:
    """The model of that name, or name and version, that was loaded last."""
    found = [model for model in models if reference in (model.source.name, model.source.reference)]
    return max(found, key=lambda model: model.loaded_at).source if found else None


def _load_now(source: ModelSource, best_batches: BestBatches) -> LoadedModel:
    """Loads a model, in the loading thread."""
    try:
        predictor = source.load()
        return LoadedModel(source=source, predictor=predictor, best_batch=best_batches.warm_up(source, predictor))
    except torch.OutOfMemoryError as error:
        raise OutOfDeviceMemory(
            f"{source.reference} does not fit into the device's memory.",
            hint="Lower FOVEA_MODEL_MEMORY, so that other models are evicted, or serve on another device.",
        ) from error


def _return_memory_soon(loop: asyncio.AbstractEventLoop) -> None:
    """Returns memory a moment later, because the model is still being released."""
    with contextlib.suppress(RuntimeError):  # the loop is closed: the process ends
        loop.call_soon_threadsafe(loop.run_in_executor, None, _return_memory)


def _return_memory() -> None:
    gc.collect()
    return_memory()
    cuda_graphs.empty_cache()  # last, because it may wait
