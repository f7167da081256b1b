"""TorchServe's inference API, and what of its management API only looks."""

from __future__ import annotations

from fastapi import APIRouter


def routers() -> list[APIRouter]:
    """`/ping`, `/predictions` and `/models`."""
    from app.protocols.torchserve import models, predictions

    return [predictions.router, models.router]
