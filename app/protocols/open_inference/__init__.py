"""The Open Inference Protocol V2 over REST, with the extensions that Triton's clients use."""

from __future__ import annotations

from fastapi import APIRouter


def routers() -> list[APIRouter]:
    """All of `/v2`. In this order: `stats` is no model's name."""
    from app.protocols.open_inference import infer, metadata, repository, statistics

    return [statistics.router, repository.router, infer.router, metadata.router]
