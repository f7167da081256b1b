"""What every route's documentation says of errors, and how bodies that FastAPI does not parse are documented."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response

from app.engine.errors import DeadlineExceeded
from app.errors import BodyTooLarge, InvalidValue, MalformedBody, NotAcceptable, RangeNotSatisfiable, UnsupportedBody
from app.http.problems import MEDIA_TYPE, problem_of
from app.schemas.problem import Problem
from models.errors import UnknownModel
from workers.errors import DiskFull, IllegalTransition, StoreUnavailable

Documented = dict[int | str, dict[str, Any]]

_PHRASES = {
    400: "The request cannot be read",
    404: "Nothing of that name",
    406: "Not in that form",
    409: "Its present state does not allow it",
    413: "Larger than the limit",
    415: "Not of a type that is read here",
    416: "The `Range` begins behind the end of the content",
    422: "It does not make sense; `errors` names every value at fault",
    503: "Full, loading, or Redis is unreachable: try again after `Retry-After` seconds",
    504: "Not ready in time",
    507: "No memory or disk space left",
}


# one error of each status, as it might be answered
_EXAMPLES: dict[int, tuple[Exception, str]] = {
    400: (MalformedBody("The body is no JSON: EOF while parsing an object at line 1 column 1."), "/v1/classify"),
    404: (UnknownModel("There is no model 'ant-bees'.", hint="Available: ants-bees, digits."), "/v1/models/ant-bees"),
    406: (NotAcceptable("Predictions cannot be had as 'text/csv'.", hint="Accept: application/json."), "/v1/classify"),
    409: (
        IllegalTransition("Job job-1a20 is succeeded and cannot become cancelled.", hint="It has ended."),
        "/v1/jobs/job-1a20/cancel",
    ),
    413: (BodyTooLarge("The body is larger than the 67108864 bytes that are read here."), "/v1/classify"),
    415: (UnsupportedBody("A body of type 'text/plain' is not read here."), "/v1/classify"),
    416: (RangeNotSatisfiable(44_783_456), "/v1/models/ants-bees/versions/1/state_dict"),
    422: (
        InvalidValue(
            "Input should be greater than or equal to 1",
            field="hyperparameters.batch_size",
            value=0,
            valid="a whole number, from 1 to 4096",
        ),
        "/v1/jobs",
    ),
    503: (StoreUnavailable("Redis is unreachable.", hint="Start Redis, or check FOVEA_REDIS_URL."), "/v1/jobs"),
    504: (DeadlineExceeded("The prediction was not ready within 30 s."), "/v1/classify"),
    507: (DiskFull("No space is left where Fovea keeps its data."), "/v1/datasets"),
}


def problems(*statuses: int) -> Documented:
    """The documentation of these errors: problem details all of them."""
    return {
        status: {"model": Problem, "description": _PHRASES[status], "content": {MEDIA_TYPE: _problem_body(status)}}
        for status in statuses
    }


def _problem_body(status: int) -> dict[str, Any]:
    error, path = _EXAMPLES[status]
    example = problem_of(error, {"path": path, "state": {"request_id": "3f0c7b1e9a5d4c22"}})
    return {
        "schema": {"$ref": "#/components/schemas/Problem"},
        "example": example.model_dump(mode="json", exclude_none=True),
    }


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
