"""Which requests predict: the one place that knows their routes before routing does.

What they have in common is decided by it: a full engine refuses them before anything else is done for them, and their
bodies, which are kept in memory, are counted together.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qs

from starlette.types import Scope

from app.engine.lane import Priority

PREDICTING_PATHS: Final = frozenset({"/v1/classify", "/v1/detect", "/v1/segment"})


@dataclass(frozen=True, slots=True)
class PredictingRoute:
    """A route, as far as a refusal needs it."""

    path_format: str  # as routing has it
    reference: str  # of the model in the path, as it was written; empty where the query has it


def predicting_route(scope: Scope) -> PredictingRoute | None:
    """The route of an HTTP request that asks for predictions, None for all others."""
    path, method = scope["path"], scope["method"]
    if path in PREDICTING_PATHS:
        return PredictingRoute(path, "") if method == "POST" else None
    parts = path.split("/")
    if not all(parts[1:]):  # no model is called nothing
        return None
    match parts:
        case ["", "v2", "models", model, "infer"] if method == "POST":
            found = PredictingRoute("/v2/models/{model}/infer", model)
        case ["", "v2", "models", model, "versions", version, "infer"] if method == "POST":
            found = PredictingRoute("/v2/models/{model}/versions/{version}/infer", f"{model}/{version}")
        case ["", "predictions", model] if method in ("POST", "PUT"):
            found = PredictingRoute("/predictions/{model}", model)
        case ["", "predictions", model, version] if method in ("POST", "PUT"):
            found = PredictingRoute("/predictions/{model}/{version}", f"{model}/{version}")
        case _:
            return None
    return found


def is_kept_in_memory(scope: Scope) -> bool:
    """Whether the body of an HTTP request is: that of a prediction, or one that may come packed."""
    return predicting_route(scope) is not None or scope["path"].startswith("/v2/repository/")


def asked_model(route: PredictingRoute, scope: Scope) -> str:
    """The reference that the request names, whatever it is worth; empty if there is none."""
    return route.reference or _model_in(scope["query_string"])


@lru_cache(maxsize=256)
def _model_in(query: bytes) -> str:
    named: list[str] = parse_qs(query.decode("latin-1")).get("model", [])
    return named[-1] if named else ""


def urgency_of(scope: Scope, *, longest_s: float) -> tuple[Priority, float]:
    """The priority, and the seconds that the answer is worth waiting for, as headers say.

    What cannot be understood is as if it were not there: the route says so, if it comes to that.
    """
    priority: Priority = "interactive"
    timeout_s = longest_s
    for name, value in scope["headers"]:
        if name == b"x-priority" and value == b"bulk":
            priority = "bulk"
        elif name == b"x-request-timeout":
            with suppress(ValueError):
                asked_s = float(value)
                timeout_s = asked_s if 0 < asked_s < longest_s else longest_s
    return priority, timeout_s
