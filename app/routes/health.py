"""Liveness, readiness and state of the server."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import Response

from app.dependencies import ServicesDep
from app.engine.devices import describe_devices, describe_memory
from app.engine.setup import longest_batch_s
from app.http.documented_answers import json_answer
from app.schemas.health import Check, Liveness, Readiness
from app.schemas.system import Disk, Engine, Limits, LoadedModel, Queue, System
from app.services import Services
from app.version import fovea_version, server_libraries
from workers.errors import StoreUnavailable

router = APIRouter(tags=["Operate"])

_LEAST_FREE_BYTES = 256 * 1024**2


@router.get("/healthz", response_model=Liveness, summary="Whether the process answers")
async def healthz() -> Liveness:
    """Answers 200 as long as the process runs. Use it to restart the server, not to route requests."""
    return Liveness()


@router.get(
    "/readyz",
    response_model=Readiness,
    summary="Whether everything Fovea needs is there",
    responses={503: {"model": Readiness, "description": "Something is missing: `checks` says what"}},
)
async def readyz(services: ServicesDep) -> Response:
    """Checks Redis, registry, engine, device and disk; 503 if one fails. Predictions work without Redis."""
    checks = await asyncio.to_thread(checks_of, services)
    is_ready = all(check.ok for check in checks.values())
    body = Readiness(status="ready" if is_ready else "not_ready", checks=checks)
    return json_answer(body, status=200 if is_ready else 503)


@router.get(
    "/v1/system", response_model=System, summary="Versions, devices, memory, loaded models, queue, disk, limits"
)
async def system(services: ServicesDep) -> System:
    """Shows versions, devices, memory, loaded models, queue, disk and limits."""
    return await asyncio.to_thread(system_of, services)


def checks_of(services: Services) -> dict[str, Check]:
    """Everything that Fovea needs, by name."""
    return {
        "redis": _redis(services),
        "registry": _writable(services.settings.registry_dir),
        "engine": _engine(services),
        "device": Check(ok=True, detail=str(services.engine.models.device)),
        "disk": _disk(services.settings.home),
    }


def _redis(services: Services) -> Check:
    try:
        services.jobs.ping()
    except StoreUnavailable as error:
        return Check(ok=False, detail=str(error))
    return Check(ok=True, detail="answers")


def _engine(services: Services) -> Check:
    if services.preloading:
        return Check(ok=False, detail=f"loading {', '.join(sorted(services.preloading))}")
    engine = services.engine
    if not engine.models.is_reachable:
        return Check(ok=False, detail="the engine process is restarting")
    if engine.busy_s > longest_batch_s(services.settings):
        return Check(ok=False, detail=f"stuck: one batch has been running for {engine.busy_s:.0f} s")
    return Check(ok=True, detail=f"{engine.pending_images} of {engine.max_pending_images} images pending")


def _writable(directory: Path) -> Check:
    is_writable = os.access(directory, os.W_OK)
    return Check(ok=is_writable, detail="writable" if is_writable else "not writable: check the owner of the directory")


def _disk(home: Path) -> Check:
    free_bytes = shutil.disk_usage(home).free
    return Check(ok=free_bytes >= _LEAST_FREE_BYTES, detail=f"{free_bytes / 1024**3:.1f} GiB free")


def system_of(services: Services) -> System:
    """What this server is, runs on and is doing. It asks GPUs, Redis and the disk: not for the event loop."""
    settings, engine = services.settings, services.engine
    disk = shutil.disk_usage(settings.home)
    try:
        depth = services.jobs.queue_depth()
    except StoreUnavailable:
        depth = None
    loaded = [
        LoadedModel(
            reference=model.source.reference,
            architecture=model.source.architecture,
            device=str(engine.models.device),
            backend=model.predictor.backend.name,
            precision=model.predictor.backend.precision,
            best_batch=model.best_batch,
            is_pinned=model.is_pinned,
            size_bytes=model.predictor.size_bytes,
            loaded_at=model.loaded_at,
            last_used_at=model.last_used_at,
        )
        for model in engine.models.all()
    ]
    return System(
        version=fovea_version(),
        libraries=server_libraries(),
        started_at=services.started_at,
        devices=describe_devices(),
        memory=describe_memory(),
        engine=Engine(
            device=str(engine.models.device),
            decode_threads=engine.decode_threads,
            pending_images=engine.pending_images,
            max_pending_images=engine.max_pending_images,
            loaded_models=loaded,
            model_memory_bytes=engine.models.budget_bytes,
        ),
        queue=Queue(depth=depth),
        disk=Disk(total_bytes=disk.total, free_bytes=disk.free),
        limits=Limits.model_validate(settings.model_dump(include=set(Limits.model_fields))),
    )
