"""The version of Fovea that runs, and of the libraries it runs on."""

from __future__ import annotations

from models.store.library_versions import WEIGHTS_DEPEND_ON, library_versions, version_of

_SERVES_WITH = ("fastapi", "uvicorn", "celery", "redis", "pydantic")


def fovea_version() -> str:
    """The version in pyproject.toml; `0+source` for a checkout that was never installed."""
    return version_of("fovea") or "0+source"


def server_libraries() -> dict[str, str]:
    """The versions of Python and of the libraries that a server depends on."""
    return library_versions((*WEIGHTS_DEPEND_ON, *_SERVES_WITH))
