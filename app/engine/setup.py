"""Builds the engine: with models in this process, or with those of an engine process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import torch

from app.engine.builds.backend_builds import BackendBuilds
from app.engine.device_access import ModelMemory
from app.engine.devices import choose_device, half_of_memory
from app.engine.engine import Engine
from app.engine.loaded_models import LoadedModels
from app.engine.model_source import ModelFinder
from app.engine.observer import Observer
from app.engine.remote.connection import EngineConnection
from app.engine.remote.remote_lane import RemoteLane
from app.engine.remote.remote_models import RemoteModels
from app.processes.cores import usable_cores
from app.processes.engine_process import EngineProcess, is_own_engine_wanted
from app.settings import ApiSettings
from models.architectures import catalog
from models.backends.choosing import Policy
from models.images.nvjpeg import NvJpeg, open_nvjpeg
from models.store.registry import Registry
from workers.datasets.store import DatasetStore

LOOKUP_EVERY_S: Final = 0.5  # the longest delay until a published or promoted version is seen
_LEAST_ARENA_BYTES: Final = 1024**3  # five times a view of 8192 px squared, the largest possible preset
# A full batch of a large detector takes many seconds on a busy CPU, less than one on a GPU
_LONGEST_BATCH_S: Final = 120.0
# A view of 800 x 1333 px, the largest preset of the catalogue; most take 0.15 MiB.
_ARENA_BYTES_PER_VIEW: Final = 4 * 1024**2


@asynccontextmanager
async def engine_connection(settings: ApiSettings) -> AsyncIterator[EngineConnection | None]:
    """A connection to the engine process, not yet open; None without an engine process.

    Starts and stops the process unless `engine_socket` names one. Raises ChildDied if it does not start.
    """
    if settings.engine_socket:
        yield EngineConnection(Path(settings.engine_socket), arena_bytes=arena_bytes(settings))
    elif await asyncio.to_thread(is_own_engine_wanted, settings):
        async with EngineProcess(settings) as process:
            yield EngineConnection(process.path, arena_bytes=arena_bytes(settings))
    else:
        yield None


def make_engine(
    settings: ApiSettings,
    registry: Registry,
    *,
    connection: EngineConnection | None,
    observers: Sequence[Observer],
) -> tuple[Engine, BackendBuilds | None]:
    """The engine of an HTTP process, and the builder of faster backends for models in this process."""
    models: ModelMemory
    builds: BackendBuilds | None = None
    nvjpeg: NvJpeg | None = None
    if connection is None:
        models, builds = open_models(settings, registry, lookup_every_s=LOOKUP_EVERY_S, replicas=settings.processes)
        if models.device.type == "cuda" and settings.jpeg_decoder == "auto":
            nvjpeg = open_nvjpeg(models.device)
    else:
        models = RemoteModels(connection, device=choose_device(settings.device), lookup_every_s=LOOKUP_EVERY_S)
    cores = max(1, usable_cores() // settings.processes)
    decode_threads = settings.decode_threads or cores
    engine = partial(
        Engine,
        models,
        decode_threads=decode_threads,
        max_pending_images=settings.max_pending_images,
        max_image_bytes=settings.max_image_bytes,
        max_image_pixels=settings.max_image_pixels,
        observers=observers,
        decode_jpeg=nvjpeg,
        has_one_core=models.device.type == "cpu" and cores == decode_threads == torch.get_num_threads() == 1,
    )
    return (engine() if connection is None else engine(make_lane=partial(RemoteLane, connection))), builds


def open_models(
    settings: ApiSettings, registry: Registry, *, lookup_every_s: float, replicas: int
) -> tuple[LoadedModels, BackendBuilds]:
    """Models in this process, and the builder of their backends. replicas: processes that share the device."""
    device = choose_device(settings.device)
    finder = ModelFinder(
        registry,
        architectures=frozenset(catalog.names()),
        weights_dir=settings.weights_dir,
        allow_download=not settings.offline,
        device=device,
    )
    models = LoadedModels(
        finder,
        budget_bytes=settings.model_memory or half_of_memory(device) // replicas,
        pinned=settings.pin,
        lookup_every_s=lookup_every_s,
    )
    builds = BackendBuilds(
        registry,
        DatasetStore(settings.datasets_dir),
        weights_dir=settings.weights_dir,
        device=device,
        policy=Policy(
            backend=settings.backend,
            precision=settings.precision,
            calibration_dataset=settings.calibration_dataset or None,
        ),
        on_ready=models.adopt,
    )
    models.on_load = builds.start
    return models, builds


def longest_batch_s(settings: ApiSettings) -> float:
    """The longest time of a batch; one that runs longer is stuck and blocks all others."""
    return max(_LONGEST_BATCH_S, 2 * settings.request_timeout_s)


def arena_bytes(settings: ApiSettings) -> int:
    """Size of the memory that a process shares with the engine process. Pages are allocated when written."""
    return max(_LEAST_ARENA_BYTES, settings.max_pending_images * _ARENA_BYTES_PER_VIEW)
