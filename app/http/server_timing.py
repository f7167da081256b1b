"""The duration of each stage of a prediction, as a `Server-Timing` header for all protocols."""

from __future__ import annotations

from app.engine.answers import Times


def server_timing(times: Times) -> dict[str, str]:
    """The header, which browsers and tracers display. The middleware adds the total."""
    return {
        "Server-Timing": f"decode;dur={times.decode_ms:.1f}, queue;dur={times.queue_ms:.1f}, "
        f"inference;dur={times.inference_ms:.1f}, postprocess;dur={times.postprocess_ms:.1f}"
    }
