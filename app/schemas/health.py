"""Liveness and readiness of the server."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class Liveness(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Check(BaseModel):
    """The state of one thing that Fovea needs."""

    ok: bool
    detail: str


class Readiness(BaseModel):
    """Everything that Fovea needs, by name. Predictions work without Redis: `checks` shows what works."""

    status: Literal["ready", "not_ready"]
    checks: dict[str, Check] = Field(description="`redis`, `registry`, `engine`, `device`, `disk`.")
