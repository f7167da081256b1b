"""What callers may rely on: the OpenAPI document. `make openapi` renews the snapshot; its diff is for review."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openapi_spec_validator import validate

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


def test_document_is_valid_openapi(document: dict[str, Any]) -> None:
    validate({**document, "info": {**document["info"], "version": "1"}})


def test_licence_is_one_that_generators_accept(document: dict[str, Any]) -> None:
    """openapi-generator refuses a name alone."""
    assert document["info"]["license"].keys() & {"identifier", "url"}


def test_every_array_says_what_is_in_it(document: dict[str, Any]) -> None:
    assert [
        place for place, schema in schemas(document) if schema.get("type") == "array" and "items" not in schema
    ] == []


def test_no_name_that_a_generator_makes_is_that_of_a_schema(document: dict[str, Any]) -> None:
    """Generators name the type of a field after both: `Job.type` is a `JobType`, and may not meet another."""
    named = document["components"]["schemas"]
    made = {
        f"{name}{''.join(word.capitalize() for word in field.split('_'))}"
        for name, schema in named.items()
        for field, of_field in schema.get("properties", {}).items()
        if any("enum" in part or "additionalProperties" in part for _, part in schemas(of_field))
    }
    assert made & named.keys() == set()


def test_operation_has_one_form_of_success(document: dict[str, Any]) -> None:
    """The type that a generator makes of two forms has only the fields that both have, for instance no job's `id`."""
    for name, operation in operations(document):
        assert len([status for status in operation["responses"] if status.startswith("2")]) == 1, name


def test_form_has_no_json_beside_it(document: dict[str, Any]) -> None:
    """Generators send JSON where they can, and take the fields of the form for its own."""
    for name, operation in operations(document):
        kinds = set(operation.get("requestBody", {}).get("content", {}))
        assert not {"multipart/form-data", "application/json"} <= kinds, name


def schemas(part: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object below `part`, with its place."""
    if isinstance(part, dict):
        yield place, part
        for key, value in part.items():
            yield from schemas(value, f"{place}/{key}")
    elif isinstance(part, list):
        for number, value in enumerate(part):
            yield from schemas(value, f"{place}/{number}")
