"""`GET /models`: descriptions of models, as in TorchServe's management API. Fovea's own API changes models.

Source: TorchServe 0.12's management API.
"""

from __future__ import annotations

import asyncio
import os
from datetime import UTC
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import JsonValue
from starlette.responses import JSONResponse, Response

from app.dependencies import ServicesDep
from app.engine.model_control import ModelStates
from app.protocols.served_models import ServedModel, find_served
from app.services import Services

router = APIRouter(prefix="/models", include_in_schema=False)


@router.get("")
async def list_models(
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    next_page_token: Annotated[int, Query(ge=0)] = 0,
) -> Response:
    """Lists the names of the registry, then loaded pretrained weights."""
    registered = await asyncio.to_thread(services.registry.names)
    states = await services.model_control.states()
    names = [*registered, *states.pretrained]
    end = next_page_token + limit
    page: dict[str, JsonValue] = {
        "models": [{"modelName": name, "modelUrl": name} for name in names[next_page_token:end]]
    }
    if end < len(names):
        page["nextPageToken"] = str(end)
    return JSONResponse(page)


@router.get("/{model}")
@router.get("/{model}/{version}")
async def show_model(services: ServicesDep, model: str, version: str | None = None) -> Response:
    """Describes one version, or with `all` every version."""
    states = await services.model_control.states()
    return JSONResponse(await asyncio.to_thread(_described, services, states, model, version))


def _described(services: Services, states: ModelStates, model: str, version: str | None) -> JsonValue:
    """The description. Reads the registry, in a thread."""
    if version != "all":
        return [_entry(services, states, find_served(services.registry, model, version))]
    versions = find_served(services.registry, model).versions
    return [_entry(services, states, find_served(services.registry, model, str(number))) for number in versions]


def _entry(services: Services, states: ModelStates, served: ServedModel) -> JsonValue:
    """The entry of a version. Its one worker is the engine, which loads the version if needed."""
    engine = services.engine
    loaded = next((model for model in engine.models.all() if model.source.reference == served.reference), None)
    since = services.started_at if loaded is None else loaded.loaded_at
    is_gpu = engine.models.device.type == "cuda"
    return {
        "modelName": served.name,
        "modelVersion": str(served.version),
        "modelUrl": served.reference,
        "engine": "Torch",
        "runtime": "python",
        "minWorkers": 1,
        "maxWorkers": 1,
        "batchSize": services.settings.max_images_per_request,
        "maxBatchDelay": 0,
        "loadedAtStartup": served.name in services.settings.preload,
        "workers": [
            {
                "id": "9000",
                "startTime": since.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "status": "READY" if states.answers(served.reference) else "UNLOADED",
                "memoryUsage": 0 if loaded is None else loaded.predictor.size_bytes,
                "pid": os.getpid(),
                "gpu": is_gpu,
                "gpuUsage": "N/A",
            }
        ],
        "jobQueueStatus": {
            "remainingCapacity": engine.max_pending_images - engine.pending_images,
            "pendingRequests": engine.pending_images,
        },
    }
