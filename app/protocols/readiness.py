"""Whether a version answers now, as clients that load and unload models understand it.

Fovea loads what it is asked for, so every version is ready; but for one that was unloaded on purpose, until something
loads it again.
"""

from __future__ import annotations

from app.services import Services


def answers_now(services: Services, reference: str) -> bool:
    """Whether the version is in memory, or was not taken out of it on purpose."""
    return reference not in services.unloaded or is_loaded(services, reference)


def is_loaded(services: Services, reference: str) -> bool:
    """Whether the version is in memory."""
    return any(model.source.reference == reference for model in services.engine.models.all())
