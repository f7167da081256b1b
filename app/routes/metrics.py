"""Metrics for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from app.dependencies import ServicesDep
from app.metrics.exposition import MEDIA_TYPE

router = APIRouter(tags=["Operate"])


@router.get(
    "/metrics",
    response_class=Response,
    summary="Counters, histograms and gauges for Prometheus",
    responses={
        200: {"description": "Prometheus's text format", "content": {"text/plain": {"schema": {"type": "string"}}}}
    },
)
async def metrics(services: ServicesDep) -> Response:
    """Sends the metrics of all replicas of this port, also without Redis. docs/monitoring.md explains them."""
    return Response(await services.metrics.text(), headers={"Content-Type": MEDIA_TYPE})
