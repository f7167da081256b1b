"""The installed versions of the libraries that weights depend on, for manifests."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

WEIGHTS_DEPEND_ON = ("fovea", "torch", "torchvision", "safetensors", "pillow")


def library_versions(names: Sequence[str] = WEIGHTS_DEPEND_ON) -> dict[str, str]:
    """The versions of Python and of those libraries that are installed."""
    found = {name: version_of(name) for name in names}
    return {"python": platform.python_version(), **{name: number for name, number in found.items() if number}}


def version_of(name: str) -> str | None:
    """The installed version of a distribution; None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
