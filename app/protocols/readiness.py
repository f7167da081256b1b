"""Whether a version answers now, as clients that load and unload models understand it.

Fovea loads what it is asked for, so every version is ready; but for one that was unloaded on purpose, until something
loads it again, and one that could not be loaded, until that is tried again.
"""

from __future__ import annotations

from app.services import Services


def answers_now(services: Services, reference: str) -> bool:
    """Whether the version is in memory, or was not taken out of it on purpose and may be loaded."""
    return is_loaded(services, reference) or (
        reference not in services.unloaded and reference not in services.engine.models.failing_s()
    )


def is_loaded(services: Services, reference: str) -> bool:
    """Whether the version is in memory."""
    return any(model.source.reference == reference for model in services.engine.models.all())
