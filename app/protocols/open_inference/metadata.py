"""`/v2`: descriptions and readiness of the server and its models."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from pydantic import JsonValue
from starlette.responses import JSONResponse, Response

from app.dependencies import ServicesDep
from app.protocols.open_inference.descriptions import config_of, metadata_of
from app.protocols.served_models import ServedModel, find_served
from app.services import Services
from app.version import fovea_version

router = APIRouter(prefix="/v2", include_in_schema=False)

_EXTENSIONS: list[JsonValue] = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
]


@router.get("")
async def server() -> Response:
    """Describes the server and its extensions."""
    return JSONResponse({"name": "fovea", "version": fovea_version(), "extensions": _EXTENSIONS})


@router.get("/health/live")
async def live() -> Response:
    """Answers 200 as long as the process runs."""
    return JSONResponse({"live": True})


@router.get("/health/ready")
async def ready(services: ServicesDep) -> Response:
    """Answers 200 once everything in FOVEA_PRELOAD is loaded, and until then 400, as the protocol says."""
    is_ready = not services.preloading
    return JSONResponse({"ready": is_ready}, status_code=200 if is_ready else 400)


@router.get("/models/{model}")
@router.get("/models/{model}/versions/{version}")
async def metadata(services: ServicesDep, model: str, version: str | None = None) -> Response:
    """Describes names, datatypes and shapes of the model's inputs and outputs."""
    return JSONResponse(metadata_of(await _find(services, model, version)))


@router.get("/models/{model}/config")
@router.get("/models/{model}/versions/{version}/config")
async def config(services: ServicesDep, model: str, version: str | None = None) -> Response:
    """Describes the model as Triton's model configuration."""
    served = await _find(services, model, version)
    most = services.settings.max_images_per_request
    return JSONResponse(config_of(served, max_batch_size=most, device=services.engine.models.device))


@router.get("/models/{model}/ready")
@router.get("/models/{model}/versions/{version}/ready")
async def model_ready(services: ServicesDep, model: str, version: str | None = None) -> Response:
    """Answers 200 if a request would be answered, perhaps after a load; 400 if a client unloaded the model."""
    served = await _find(services, model, version)
    is_ready = (await services.model_control.states()).answers(served.reference)
    return JSONResponse({"name": model, "ready": is_ready}, status_code=200 if is_ready else 400)


async def _find(services: Services, model: str, version: str | None) -> ServedModel:
    return await asyncio.to_thread(find_served, services.registry, model, version)
