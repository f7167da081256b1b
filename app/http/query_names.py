"""Refuses query parameters that a route does not have: `POST /v1/jobs?dry_run=true` must not queue a job."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute


async def refuse_unknown_names(request: Request) -> None:
    """A dependency of every route. Routes outside of the OpenAPI document, as those of `/v2`, take any parameter.

    Raises RequestValidationError with every name that the route does not have.
    """
    route = request.scope.get("route")
    if not request.scope["query_string"] or not isinstance(route, APIRoute) or not route.include_in_schema:
        return
    known = set(_names(route.dependant))
    if unknown := [(name, value) for name, value in request.query_params.multi_items() if name not in known]:
        raise RequestValidationError([_error(name, value, sorted(known)) for name, value in unknown])


def _names(dependant: Dependant) -> Iterator[str]:
    """The query parameters of a route and of its dependencies."""
    yield from (field.alias for field in dependant.query_params)
    for other in dependant.dependencies:
        yield from _names(other)


def _error(name: str, value: str, known: list[str]) -> dict[str, object]:
    close = difflib.get_close_matches(name, known, n=1)
    meant = f"{close[0]} (perhaps meant), among " if close else ""
    return {
        "type": "unknown_query_parameter",
        "loc": ("query", name),
        "msg": "This route has no such query parameter" if known else "This route takes no query parameters",
        "input": value,
        "ctx": {"valid": f"{meant}{', '.join(known)}"} if known else {},
    }
