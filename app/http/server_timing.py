"""Where the time of a prediction went, for every protocol that answers one."""

from __future__ import annotations

from app.engine.answers import Times


def server_timing(times: Times) -> dict[str, str]:
    """The header that browsers and tracers draw; the middleware adds the total to it."""
    return {
        "Server-Timing": f"decode;dur={times.decode_ms:.1f}, queue;dur={times.queue_ms:.1f}, "
        f"inference;dur={times.inference_ms:.1f}, postprocess;dur={times.postprocess_ms:.1f}"
    }
