"""Which Fovea this is, and on which libraries."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_LIBRARIES = ("torch", "torchvision", "safetensors", "pillow", "fastapi", "uvicorn", "celery", "redis", "pydantic")


def fovea_version() -> str:
    """As in pyproject.toml; `0+source` when run from a checkout that was never installed."""
    return _version_of("fovea") or "0+source"


def library_versions() -> dict[str, str]:
    """Python and the libraries that matter."""
    found = {name: _version_of(name) for name in _LIBRARIES}
    return {"python": platform.python_version(), **{name: number for name, number in found.items() if number}}


def _version_of(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
