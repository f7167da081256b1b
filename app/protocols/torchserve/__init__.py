"""TorchServe's inference API, and the reading part of its management API."""

from __future__ import annotations

from fastapi import APIRouter


def routers() -> list[APIRouter]:
    """`/ping`, `/predictions` and `/models`."""
    from app.protocols.torchserve import models, predictions

    return [predictions.router, models.router]
