"""`/v2`: the server and its models, described; whether they are ready."""

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
    """Which server this is, and the extensions that it has."""
    return JSONResponse({"name": "fovea", "version": fovea_version(), "extensions": _EXTENSIONS})


@router.get("/health/live")
async def live() -> Response:
    """200 as long as the process answers."""
    return JSONResponse({"live": True})


@router.get("/health/ready")
async def ready(services: ServicesDep) -> Response:
    """200 once everything in FOVEA_PRELOAD is in memory; 400, as the protocol has it, until then."""
    is_ready = not services.preloading
    return JSONResponse({"ready": is_ready}, status_code=200 if is_ready else 400)


@router.get("/models/{model}")
@router.get("/models/{model}/versions/{version}")
async def metadata(services: ServicesDep, model: str, version: str | None = None) -> Response:
    """Names, datatypes and shapes of what the model takes and gives."""
    return JSONResponse(metadata_of(await _find(services, model, version)))


@router.get("/models/{model}/config")
@router.get("/models/{model}/versions/{version}/config")
async def config(services: ServicesDep, model: str, version: str | None = None) -> Response:
    """The same and more in the words of Triton's model configuration."""
    served = await _find(services, model, version)
    most = services.settings.max_images_per_request
    return JSONResponse(config_of(served, max_batch_size=most, device=services.engine.models.device))


@router.get("/models/{model}/ready")
@router.get("/models/{model}/versions/{version}/ready")
async def model_ready(services: ServicesDep, model: str, version: str | None = None) -> Response:
    """200 if a request would be answered, were the model loaded for it first; 400 after it was unloaded on purpose."""
    served = await _find(services, model, version)
    is_ready = (await services.model_control.states()).answers(served.reference)
    return JSONResponse({"name": model, "ready": is_ready}, status_code=200 if is_ready else 400)


async def _find(services: Services, model: str, version: str | None) -> ServedModel:
    return await asyncio.to_thread(find_served, services.registry, model, version)
