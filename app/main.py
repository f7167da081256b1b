"""The API process: the composition root. The lifespan opens and closes everything; routes receive it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from fastapi import Depends, FastAPI

from app.engine.model_control import ModelControl
from app.engine.remote.connection import EngineConnection
from app.engine.replica_files import ReplicaFiles
from app.engine.setup import engine_connection, make_engine
from app.engine.statistics import Statistics
from app.http.cors import allow_origins
from app.http.head_requests import HeadMiddleware
from app.http.image_urls import ImageUrls
from app.http.middleware import RequestMiddleware
from app.http.openapi import complete_openapi
from app.http.problems import install_problem_handlers
from app.http.query_names import refuse_unknown_names
from app.http.refusals import RefusalMiddleware
from app.http.spool import Spool
from app.metrics.exposition import Exposition
from app.metrics.instruments import Instruments
from app.metrics.shared_values import shared_directory
from app.pages import start
from app.processes.replicas import REPLICA, REPLICAS_DIRECTORY
from app.protocols import open_inference, torchserve
from app.protocols.served_models import find_served
from app.routes import (
    architectures,
    classify,
    datasets,
    detect,
    documentation,
    health,
    jobs,
    metrics,
    models,
    runs,
    segment,
)
from app.services import Services
from app.settings import ApiSettings
from app.version import fovea_version
from models.architectures import catalog
from models.drawing.fonts import Fonts
from models.store.registry import Registry
from workers.datasets.store import DatasetStore
from workers.errors import StoreUnavailable
from workers.jobs.idempotency_store import IdempotencyStore
from workers.jobs.store import JobStore
from workers.queue import enqueue, make_celery

log = logging.getLogger(__name__)

_INTAKE_THREADS = 2
_DESCRIPTION = """Post images, get labels, boxes and masks. Post a zip of your own photos, get a fine-tuned model:
measured, versioned and live.

Errors are problem details (RFC 9457) with a stable `code` and, where there is a way out, a `hint`. Every answer carries
`X-Request-ID`. A POST that creates something honours `Idempotency-Key`."""
_TAGS = [
    {"name": "Predict", "description": "Ask a model."},
    {"name": "Datasets", "description": "Photos to learn from."},
    {"name": "Jobs", "description": "Training runs: start, watch, stop."},
    {"name": "Models", "description": "Trained models: versions, aliases, weights."},
    {"name": "Catalogue", "description": "What can be trained."},
    {"name": "Operate", "description": "Health and state of the server."},
]


def create_app(settings: ApiSettings | None = None) -> FastAPI:
    """The application. Its lifespan opens the stores and the engine; only `shared_directory()` is opened here.

    settings: read from the environment if None, so that any ASGI server can start it: `uvicorn --factory
    app.main:create_app`.
    """
    settings = settings or ApiSettings()
    instruments = Instruments(directory=shared_directory())
    app = FastAPI(
        title="Fovea",
        version=fovea_version(),
        summary="A self-hosted vision service",
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},  # openapi-generator refuses a name alone
        openapi_url=None,  # these pages are in `routes/documentation.py`
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(refuse_unknown_names)],
        lifespan=_lifespan(settings, instruments),
    )
    predicting, training = (classify, detect, segment), (datasets, jobs, runs, models, architectures)
    routers = [module.router for module in (*predicting, *training, health, metrics, documentation, start)]
    routers += [*open_inference.routers(), *torchserve.routers()]
    for router in routers:
        app.include_router(router)
    documentation.mount_assets(app)
    install_problem_handlers(app)
    complete_openapi(app)
    # The middleware that is added last is the outermost one.
    app.add_middleware(HeadMiddleware)
    app.add_middleware(RefusalMiddleware, routers=routers, settings=settings)
    app.add_middleware(RequestMiddleware, count=instruments.http_requests.count)
    if settings.cors_origins:
        allow_origins(app, settings.cors_origins)
    return app


def _lifespan(
    settings: ApiSettings, instruments: Instruments
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with engine_connection(settings) as connection:
            services = await asyncio.to_thread(_open, settings, instruments, connection)
            app.state.services = services
            beside: list[asyncio.Task[None]] = []
            try:
                if connection is not None:
                    await connection.open()
                beside += (asyncio.create_task(_preload(services, name)) for name in sorted(services.preloading))
                if instruments.shared is not None:
                    beside.append(asyncio.create_task(services.metrics.keep_others_informed()))
                beside.append(asyncio.create_task(services.model_control.keep_in_step()))
                yield
            finally:
                for task in beside:
                    task.cancel()
                await _close(services)

    return lifespan


def _open(settings: ApiSettings, instruments: Instruments, connection: EngineConnection | None) -> Services:
    settings = settings.model_copy(update={"home": settings.home.resolve()})
    for directory in (settings.datasets_dir, settings.runs_dir, settings.registry_dir, settings.weights_dir):
        directory.mkdir(parents=True, exist_ok=True)
    registry = Registry(settings.registry_dir, reserved_names=frozenset(catalog.names()))
    store = DatasetStore(settings.datasets_dir)
    if removed := store.remove_leftovers() + registry.remove_leftovers():
        log.info("removed %d unfinished dataset(s) and model version(s) of processes that died", removed)
    celery = make_celery(settings.redis_url, visibility_timeout_s=settings.visibility_timeout_s)
    statistics = Statistics(now=lambda: datetime.now(UTC))
    observers = (statistics, instruments.predictions)
    engine, builds = make_engine(settings, registry, connection=connection, observers=observers)
    job_store = JobStore(settings.redis_url, settings.runs_dir, lease_s=settings.lease_s)
    spool = Spool.open(settings.home)
    replica = os.environ.get(REPLICA)  # None: this server has the port to itself
    shared = spool.new_path() if replica is None else Path(os.environ[REPLICAS_DIRECTORY])
    files = ReplicaFiles(shared, replica)
    services = Services(
        settings=settings,
        started_at=datetime.now(UTC),
        now=lambda: datetime.now(UTC),
        registry=registry,
        datasets=store,
        jobs=job_store,
        send=partial(enqueue, celery),
        idempotency=IdempotencyStore(settings.redis_url),
        engine=engine,
        builds=builds,
        image_urls=ImageUrls(
            settings.image_url_hosts, max_bytes=settings.max_image_bytes, timeout_s=settings.image_url_timeout_s
        ),
        fonts=Fonts(settings.font),
        metrics=Exposition(instruments, engine=engine, jobs=job_store),
        spool=spool,
        preloading={*settings.preload, *settings.pin},
        model_control=ModelControl(engine.models, statistics, files, timeout_s=settings.request_timeout_s),
        intake=ThreadPoolExecutor(_INTAKE_THREADS, thread_name_prefix="intake"),
    )
    _restore_jobs(services)
    return services


def _restore_jobs(services: Services) -> None:
    try:
        restored = services.jobs.restore()
    except StoreUnavailable as error:
        log.warning("%s Predictions work; jobs answer 503 until it is back.", error)
        return
    if restored:
        log.warning("Redis had lost %d job(s): they were read back from the run directories", len(restored))


async def _preload(services: Services, reference: str) -> None:
    try:
        name, _, version = reference.partition("/")
        served = await asyncio.to_thread(find_served, services.registry, name, version or None)
        if served.reference in (await services.model_control.states()).unloaded:
            return  # by a client, before this replica was started again
        await services.engine.models.get(reference)
    except Exception as error:  # a start is not stopped by a model that is not there
        log.warning("%s was not preloaded: %s", reference, error)
    finally:
        services.preloading.discard(reference)


async def _close(services: Services) -> None:
    if services.builds is not None:
        await services.builds.close()
    await services.engine.close()
    await services.image_urls.close()
    services.intake.shutdown(wait=False, cancel_futures=True)
    services.jobs.close()
    services.idempotency.close()
    await asyncio.to_thread(services.spool.close)
