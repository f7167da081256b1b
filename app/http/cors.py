"""CORS: web pages of other origins may call the API from a browser, where the operator allows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

# Response headers that a script may read, beside those that every script may.
_EXPOSED: Final = (
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Idempotent-Replayed",
    "Inference-Header-Content-Length",
    "Location",
    "Retry-After",
    "Server-Timing",
    "X-Request-ID",
)


def allow_origins(app: FastAPI, origins: Sequence[str]) -> None:
    """Added last, so that pages can read refusals and unexpected errors too."""
    app.add_middleware(
        CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"], expose_headers=_EXPOSED
    )
