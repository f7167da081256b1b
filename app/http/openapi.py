"""Completes the OpenAPI document: bodies that routes read themselves, problem details, example values."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from typing import Any, Final

from fastapi import FastAPI

from app.http.documented_answers import problems
from app.http.problems import MEDIA_TYPE
from app.schemas.predict import PredictRequest

_EXAMPLES: Final = {
    "model": "ants-bees",
    "name": "ants-bees",
    "version": 1,
    "alias": "production",
    "job_id": "job-1a20823ca638b858290",
    "file": "report.json",
    "type": "fine_tune",
}
_MODELS: Final = {"/v1/detect": "fasterrcnn_resnet50_fpn_v2", "/v1/segment": "lraspp_mobilenet_v3_large"}


def complete_openapi(app: FastAPI) -> None:
    """Replaces `app.openapi` by a function that completes FastAPI's document once."""
    made_by_fastapi = app.openapi
    one_at_a_time = threading.Lock()  # so that no request sees a half complete document
    is_complete = False

    def openapi() -> dict[str, Any]:
        nonlocal is_complete
        with one_at_a_time:
            if not is_complete:
                _complete(made_by_fastapi())
                is_complete = True
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    body = PredictRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(body.pop("$defs", {}))
    schemas["PredictRequest"] = body
    for schema in schemas.values():
        _name_items(schema)
    for path, methods in document["paths"].items():
        examples = {**_EXAMPLES, "model": _MODELS.get(path, _EXAMPLES["model"])}
        for operation in methods.values():
            _only_problems(operation["responses"])
            _describe_answers(operation["responses"], schemas)
            _add_examples(operation.get("parameters", ()), examples)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)


def _name_items(schema: Any) -> None:
    """Gives arrays of a fixed length the `items` that client generators ask for: a tuple here has one type.

    Raises ValueError for a tuple of several types, for which OpenAPI 3.0 has no words.
    """
    if isinstance(schema, dict):
        if (parts := schema.pop("prefixItems", None)) is not None:
            if any(part != parts[0] for part in parts):
                msg = f"a tuple of several types has no schema that generators read: {parts}"
                raise ValueError(msg)
            schema["items"] = parts[0]
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            _name_items(part)


def _describe_answers(responses: dict[str, dict[str, Any]], schemas: dict[str, Any]) -> None:
    """Describes answers by the first line of their schema's description."""
    for answer in responses.values():
        if answer["description"] == "Successful Response":
            name = answer.get("content", {}).get("application/json", {}).get("schema", {}).get("$ref", "")
            words = schemas.get(name.rpartition("/")[2], {}).get("description", "Done.")
            answer["description"] = words.partition("\n")[0]


def _add_examples(parameters: Iterable[dict[str, Any]], examples: Mapping[str, object]) -> None:
    """Adds the values that Swagger UI fills in under "Try it out"."""
    for parameter in parameters:
        if parameter.get("required") and parameter["name"] in examples:
            parameter["example"] = examples[parameter["name"]]


def _only_problems(responses: dict[str, dict[str, Any]]) -> None:
    """Removes FastAPI's own form of 422, and the content type that it copies from a route to its errors."""
    if "HTTPValidationError" in str(responses.get("422")):
        said = problems(422)[422]
        responses["422"] = {"description": said["description"], "content": said["content"]}
    for answer in responses.values():
        if MEDIA_TYPE in answer.get("content", {}):
            answer["content"] = {MEDIA_TYPE: answer["content"][MEDIA_TYPE]}
