"""Errors in the shape of foreign protocols. The path of the request decides on the shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pydantic import JsonValue

from app.schemas.problem import Problem

# Statuses with the same meaning in every protocol. Any other client error is a 400 in both.
_KEPT: Final = frozenset({404, 405, 408, 413, 429})

_TORCHSERVE_TYPES: Final = {
    "unknown_route": "ResourceNotFoundException",
    "unknown_version": "ModelVersionNotFoundException",
    404: "ModelNotFoundException",
    405: "MethodNotAllowedException",
    503: "ServiceUnavailableException",
    504: "RequestTimeoutException",
    507: "OutOfMemoryError",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignError:
    """An error in another shape than problem details: a status and a JSON body."""

    status: int
    body: dict[str, JsonValue]


def foreign_error(problem: Problem, path: str) -> ForeignError | None:
    """The problem as the clients of its path's protocol know errors; None where problem details are its own shape.

    path: without the server's root path.
    """
    first = path.split("/")[1] if "/" in path else ""
    if first == "v2":
        return ForeignError(status=_status(problem), body={"error": _message(problem)})
    if first in ("ping", "predictions", "models"):
        status = _status(problem)
        kind = _TORCHSERVE_TYPES.get(problem.code) or _TORCHSERVE_TYPES.get(status)
        kind = kind or ("InternalServerException" if status >= 500 else "BadRequestException")
        return ForeignError(status=status, body={"code": status, "type": kind, "message": _message(problem)})
    return None


def _status(problem: Problem) -> int:
    return problem.status if problem.status >= 500 or problem.status in _KEPT else 400


def _message(problem: Problem) -> str:
    """One line: these protocols have no place for a hint."""
    return problem.detail if problem.hint is None else f"{problem.detail} {problem.hint}"
