"""`/v2/models/stats`: statistics per version, as in Triton's statistics extension."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from pydantic import JsonValue
from starlette.responses import JSONResponse, Response

from app.dependencies import ServicesDep
from app.engine.statistics import Duration, ModelStatistics
from app.protocols.served_models import PRETRAINED_VERSION, find_served

router = APIRouter(prefix="/v2", include_in_schema=False)

_NEVER = Duration()


@router.get("/models/stats")
async def all_statistics(services: ServicesDep) -> Response:
    """The statistics of every version that was used since the server started."""
    entries = []
    for reference, found in (await services.model_control.statistics()).items():
        name, _, version = reference.partition("/")
        entries.append(_entry(name, int(version) if version else PRETRAINED_VERSION, found))
    return JSONResponse({"model_stats": entries})


@router.get("/models/{model}/stats")
@router.get("/models/{model}/versions/{version}/stats")
async def model_statistics(services: ServicesDep, model: str, version: str | None = None) -> Response:
    """The statistics of a version; without a version, of all versions of the name."""
    served = await asyncio.to_thread(find_served, services.registry, model, version)
    if version is not None or len(served.versions) == 1:
        references = {served.version: served.reference}
    else:
        references = {number: f"{model}/{number}" for number in served.versions}
    found = await services.model_control.statistics()
    entries = [
        _entry(model, number, found.get(reference, ModelStatistics())) for number, reference in references.items()
    ]
    return JSONResponse({"model_stats": entries})


def _entry(name: str, version: int, found: ModelStatistics) -> JsonValue:
    return {
        "name": name,
        "version": str(version),
        "last_inference": found.last_inference_ms,
        "inference_count": found.inference_count,
        "execution_count": found.execution_count,
        "inference_stats": {
            "success": _duration(found.success),
            "fail": _duration(found.fail),
            "queue": _duration(found.queue),
            "compute_input": _duration(found.compute_input),
            "compute_infer": _duration(found.compute_infer),
            "compute_output": _duration(found.compute_output),
            "cache_hit": _duration(_NEVER),
            "cache_miss": _duration(_NEVER),
        },
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": _duration(_NEVER),  # images are prepared one by one, before the batch
                "compute_infer": _duration(duration),
                "compute_output": _duration(_NEVER),
            }
            for size, duration in sorted(found.by_batch_size.items())
        ],
    }


def _duration(duration: Duration) -> JsonValue:
    return {"count": duration.count, "ns": duration.ns}
