"""Models in memory: found by reference at every request, loaded once however many ask, the least recently used goes.

A reference is resolved anew every time, so a moved alias is live at once; what is kept is what it resolves to.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch

from app.inference.errors import OutOfDeviceMemory
from models.errors import WeightsUnavailable
from models.predictor import AnyPredictor, Predictor
from models.registry import Registry
from models.weights import find_pretrained

log = logging.getLogger(__name__)

_UNAVAILABLE_FOR_S = 30.0  # a host that did not answer is not asked again for every request


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSource:
    """What a reference means right now, and how to load it."""

    name: str
    version: int | None  # None: pretrained weights of the catalogue
    architecture: str
    digest: str  # names the weights; should a version number ever come back, these are told apart by it
    size_bytes: int  # of the weights' file
    load: Callable[[], AnyPredictor]

    @property
    def reference(self) -> str:
        return self.name if self.version is None else f"{self.name}/{self.version}"


@dataclass(kw_only=True, slots=True)
class LoadedModel:
    """A model that can predict."""

    source: ModelSource
    predictor: AnyPredictor
    loaded_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    last_used_at: datetime = field(default_factory=lambda: datetime.now(UTC))


class LoadedModels:
    """At most `capacity` models on one device. To be used from one event loop."""

    def __init__(
        self,
        registry: Registry,
        *,
        architectures: frozenset[str],
        weights_dir: Path,
        allow_download: bool,
        device: torch.device,
        capacity: int,
    ) -> None:
        self._registry = registry
        self._architectures = architectures
        self._weights_dir = weights_dir
        self._allow_download = allow_download
        self._device = device
        self._capacity = capacity
        self._loaded: OrderedDict[str, LoadedModel] = OrderedDict()  # by digest, least recently used first
        self._loading: dict[str, asyncio.Task[LoadedModel]] = {}
        self._unavailable: dict[str, tuple[WeightsUnavailable, float]] = {}
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load")

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self._device

    def all(self) -> list[LoadedModel]:
        """The least recently used first."""
        return list(self._loaded.values())

    async def get(self, reference: str) -> LoadedModel:
        """The model that `reference` means now, loaded if need be.

        Whoever gives up waiting does not stop the loading. Raises ModelsError, OutOfDeviceMemory.
        """
        source = await asyncio.to_thread(self._find, reference)
        loaded = self._loaded.get(source.digest)
        if loaded is None:
            loaded = await asyncio.shield(self._load_once(source))
        if source.digest in self._loaded:
            self._loaded.move_to_end(source.digest)
        loaded.last_used_at = datetime.now(UTC)
        return loaded

    async def close(self) -> None:
        """Lets go of every model."""
        for task in self._loading.values():
            task.cancel()
        self._loader.shutdown(wait=False, cancel_futures=True)
        self._loaded.clear()

    def _find(self, reference: str) -> ModelSource:
        """Reads the registry: in a thread."""
        if reference.partition(".")[0] in self._architectures:
            found = find_pretrained(reference)
            assert found is not None
            architecture, entry = found

            return ModelSource(
                name=entry.reference,
                version=None,
                architecture=architecture.name,
                digest=entry.reference,
                size_bytes=entry.size_bytes,
                load=lambda: Predictor.from_pretrained(
                    architecture,
                    entry,
                    weights_dir=self._weights_dir,
                    allow_download=self._allow_download,
                    device=self._device,
                ),
            )
        version = self._registry.resolve(reference)
        manifest = version.manifest
        return ModelSource(
            name=manifest.name,
            version=manifest.version,
            architecture=manifest.architecture,
            digest=f"{manifest.reference} {manifest.sha256}",
            size_bytes=manifest.size_bytes,
            load=lambda: Predictor.from_version(self._registry, version, self._device),
        )

    def _load_once(self, source: ModelSource) -> asyncio.Task[LoadedModel]:
        task = self._loading.get(source.digest)
        if task is None:
            task = asyncio.create_task(self._load(source), name=f"load {source.reference}")
            self._loading[source.digest] = task
            task.add_done_callback(lambda done: self._end_loading(source.digest, done))
        return task

    def _end_loading(self, digest: str, task: asyncio.Task[LoadedModel]) -> None:
        self._loading.pop(digest, None)
        if not task.cancelled():
            task.exception()  # seen here too, in case nobody waits any more

    async def _load(self, source: ModelSource) -> LoadedModel:
        error, until = self._unavailable.get(source.digest, (None, 0.0))
        if error is not None and time.monotonic() < until:
            raise error
        started_at = time.monotonic()
        try:
            loaded = await asyncio.get_running_loop().run_in_executor(self._loader, _load_now, source)
        except WeightsUnavailable as unavailable:
            self._unavailable[source.digest] = (unavailable, time.monotonic() + _UNAVAILABLE_FOR_S)
            raise
        self._unavailable.pop(source.digest, None)
        self._loaded[source.digest] = loaded
        log.info("loaded %s in %.1f s", source.reference, time.monotonic() - started_at)
        while len(self._loaded) > self._capacity:
            _, evicted = self._loaded.popitem(last=False)
            log.info("unloaded %s: %d models are the limit", evicted.source.reference, self._capacity)
        return loaded


def _load_now(source: ModelSource) -> LoadedModel:
    try:
        predictor = source.load()
    except torch.OutOfMemoryError as error:
        raise OutOfDeviceMemory(
            f"{source.reference} does not fit into the device's memory.",
            hint="Lower FOVEA_MAX_LOADED_MODELS, or serve on another device.",
        ) from error
    return LoadedModel(source=source, predictor=predictor)
