"""The objects that routes work with. `main.py` creates them once, `dependencies.py` hands them out."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from app.engine.builds.backend_builds import BackendBuilds
from app.engine.engine import Engine
from app.engine.model_control import ModelControl
from app.http.image_urls import ImageUrls
from app.http.spool import Spool
from app.metrics.exposition import Exposition
from app.settings import ApiSettings
from models.drawing.fonts import Fonts
from models.store.registry import Registry
from workers.datasets.store import DatasetStore
from workers.jobs.idempotency_store import IdempotencyStore
from workers.jobs.store import JobStore


@dataclass(frozen=True, kw_only=True)
class Services:
    """Everything a route may need."""

    settings: ApiSettings
    started_at: datetime
    now: Callable[[], datetime]
    registry: Registry
    datasets: DatasetStore
    jobs: JobStore
    send: Callable[[str, str], None]  # job id, request id: offers the job to the workers
    idempotency: IdempotencyStore
    engine: Engine
    builds: BackendBuilds | None  # None: the engine process has them
    image_urls: ImageUrls
    fonts: Fonts  # for labels on drawn answers
    metrics: Exposition
    spool: Spool
    preloading: set[str]  # references that are still to be loaded before the server is ready
    model_control: ModelControl
    intake: Executor  # the few threads that unpack and check what was uploaded: minutes, not milliseconds

    @property
    def weights_dir(self) -> Path:
        return self.settings.weights_dir
