"""Is the process alive, and can it do its work?"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class Liveness(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Check(BaseModel):
    """One thing that Fovea needs."""

    ok: bool
    detail: str


class Readiness(BaseModel):
    """Every thing that Fovea needs, by name. Predictions need no Redis: look at `checks` for what works."""

    status: Literal["ready", "not_ready"]
    checks: dict[str, Check] = Field(description="`redis`, `registry`, `engine`, `device`, `disk`.")
