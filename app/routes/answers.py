"""What every route's documentation says of errors, and how bodies that FastAPI does not parse are documented."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response

from app.problems import MEDIA_TYPE
from app.schemas.problem import Problem

Documented = dict[int | str, dict[str, Any]]

_PHRASES = {
    400: "The request cannot be read",
    404: "Nothing of that name",
    406: "Not in that form",
    409: "Its present state does not allow it",
    413: "Larger than the limit",
    415: "Not of a type that is read here",
    422: "It does not make sense; `errors` names every value at fault",
    503: "Full, loading, or Redis is away: try again after `Retry-After` seconds",
    504: "Not ready in time",
    507: "No memory or disk space left",
}


def problems(*statuses: int) -> Documented:
    """The documentation of these errors: problem details all of them."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"model": Problem, "description": _PHRASES[status], "content": content} for status in statuses}


def json_answer(body: BaseModel, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`body` as JSON, without a second validation of what was just made."""
    return Response(body.model_dump_json(), status_code=status, headers=headers, media_type="application/json")


def file_part(description: str) -> dict[str, Any]:
    """A file in a form, as Swagger UI draws a file picker for it."""
    return {"type": "string", "format": "binary", "description": description}


def form_body(properties: Mapping[str, Any], *, required: list[str]) -> dict[str, Any]:
    """A multipart body."""
    schema = {"type": "object", "properties": dict(properties), "required": required}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
