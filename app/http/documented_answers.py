"""Documentation of errors, and of bodies that FastAPI does not parse, for all routes."""

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
    404: "No such thing",
    406: "Not available in that form",
    409: "The current state does not allow it",
    413: "Larger than the limit",
    415: "A type that is not supported here",
    416: "The `Range` begins behind the end of the content",
    422: "The request is invalid; `errors` names every invalid value",
    503: "Full, loading, or Redis is unreachable: try again after `Retry-After` seconds",
    504: "Not ready in time",
    507: "No memory or disk space left",
}


# An example error for each status.
_EXAMPLES: dict[int, tuple[Exception, str]] = {
    400: (MalformedBody("The body is not valid JSON: EOF while parsing an object at line 1 column 1."), "/v1/classify"),
    404: (UnknownModel("There is no model 'ant-bees'.", hint="Available: ants-bees, digits."), "/v1/models/ant-bees"),
    406: (
        NotAcceptable("Predictions are not available as 'text/csv'.", hint="Accept: application/json."),
        "/v1/classify",
    ),
    409: (
        IllegalTransition("Job job-1a20 is succeeded and cannot become cancelled.", hint="It has ended."),
        "/v1/jobs/job-1a20/cancel",
    ),
    413: (BodyTooLarge("The body is larger than 67108864 bytes, the limit of this route."), "/v1/classify"),
    415: (UnsupportedBody("A body of type 'text/plain' is not supported here."), "/v1/classify"),
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
    """The documentation of these errors, each as problem details."""
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
    """`body` as a JSON response, without a second validation."""
    return Response(body.model_dump_json(), status_code=status, headers=headers, media_type="application/json")


def file_part(description: str) -> dict[str, Any]:
    """The schema of a file in a form, for which Swagger UI shows a file picker."""
    return {"type": "string", "format": "binary", "description": description}


def form_body(properties: Mapping[str, Any], *, required: list[str]) -> dict[str, Any]:
    """The documentation of a multipart body."""
    schema = {"type": "object", "properties": dict(properties), "required": required}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}
