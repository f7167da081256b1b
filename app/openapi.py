"""What FastAPI cannot know of the API: bodies that routes read by hand, and that every error is problem details."""

from __future__ import annotations

import threading
from typing import Any

from fastapi import FastAPI

from app.problems import MEDIA_TYPE
from app.routes.answers import problems
from app.schemas.classify import ClassifyRequest


def complete_openapi(app: FastAPI) -> None:
    """Has `app.openapi()` say it."""
    made_by_fastapi = app.openapi
    one_at_a_time = threading.Lock()  # nobody sees it half complete
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
    body = ClassifyRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(body.pop("$defs", {}))
    schemas["ClassifyRequest"] = body
    for methods in document["paths"].values():
        for operation in methods.values():
            _only_problems(operation["responses"])
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)


def _only_problems(responses: dict[str, dict[str, Any]]) -> None:
    """FastAPI adds its own form of 422, and what a route answers with to its errors too."""
    if "HTTPValidationError" in str(responses.get("422")):
        said = problems(422)[422]
        responses["422"] = {"description": said["description"], "content": said["content"]}
    for answer in responses.values():
        if MEDIA_TYPE in answer.get("content", {}):
            answer["content"] = {MEDIA_TYPE: answer["content"][MEDIA_TYPE]}
