"""What callers may rely on: the OpenAPI document. `make openapi` renews the snapshot; its diff is for review."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.main import create_app
from app.settings import ApiSettings
from tests.contracts.update_openapi import SNAPSHOT, document_of


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return document_of(create_app(ApiSettings(_env_file=None)))


def test_document_is_the_one_that_was_reviewed(document: dict[str, Any]) -> None:
    assert document == json.loads(SNAPSHOT.read_text(encoding="utf-8")), "run `make openapi` and look at the diff"


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_route_says_what_it_does_and_how_it_fails(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        assert operation.get("summary"), name
        assert operation.get("description"), name
        assert operation.get("tags"), name
        is_fallible = any(parameter["in"] == "path" for parameter in operation.get("parameters", ()))
        problems = [
            status
            for status, answer in operation["responses"].items()
            if "application/problem+json" in answer.get("content", {})
        ]
        assert problems or not is_fallible, name


def test_every_error_is_problem_details(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for status, answer in operation["responses"].items():
            if status >= "400" and not name.endswith("/readyz"):
                assert list(answer["content"]) == ["application/problem+json"], f"{name} {status}"


def test_every_body_has_an_example_or_a_file_picker(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for kind, body in operation.get("requestBody", {}).get("content", {}).items():
            text = json.dumps(body) + json.dumps(_schema(document, body["schema"]))
            assert "example" in text or '"binary"' in text, f"{name} {kind}"


def _schema(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    found: dict[str, Any] = document["components"]["schemas"][reference.rpartition("/")[2]] if reference else schema
    return found
