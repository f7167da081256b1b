"""Describes valid values in words, read from the OpenAPI document, so that errors and contract agree."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, cast

Schema = Mapping[str, Any]
_MOST_NAMES = 40


def describe_valid(document: Schema, operation: Schema, location: Sequence[int | str]) -> str | None:
    """Describes the valid values at `location`, for instance ("body", "hyperparameters", "epochs").

    For an unknown name it lists the valid names. Returns None if the document does not say.
    """
    where, *path = location
    schema = _entry_schema(operation, str(where), path)
    if where != "body":
        path = path[1:]
    for step in path:
        schema = _resolved(document, schema)
        child = _child(document, schema, step)
        if child is None:
            return _describe_names(schema, str(step))
        schema = child
    return _describe(document, schema) or None


def kind_of_body(document: Schema, operation: Schema, name: str) -> Schema | None:
    """The body schema whose `type` is `name`, for an operation with several kinds of bodies."""
    return _kind(document, _entry_schema(operation, "body", ()), name)


def _kind(document: Schema, schema: Schema, name: str) -> Schema | None:
    for option in schema.get("oneOf", ()):
        kind = _resolved(document, option)
        if kind.get("properties", {}).get("type", {}).get("const") == name:
            return kind
    return None


def _entry_schema(operation: Schema, where: str, path: Sequence[int | str]) -> Schema:
    if where == "body":
        content = operation.get("requestBody", {}).get("content", {})
        media = content.get("application/json") or content.get("multipart/form-data") or {}
        return cast("Schema", media.get("schema", {}))
    for parameter in operation.get("parameters", ()):
        if path and parameter["in"] == where and parameter["name"] == path[0]:
            return cast("Schema", parameter["schema"])
    return {}


def _resolved(document: Schema, schema: Schema) -> Schema:
    while "$ref" in schema:
        target: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        schema = target
    alternatives = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    return _resolved(document, alternatives[0]) if len(alternatives) == 1 else schema


def _child(document: Schema, schema: Schema, step: int | str) -> Schema | None:
    if isinstance(step, int):
        return cast("Schema | None", schema.get("items"))
    if isinstance(step, str) and (kind := _kind(document, schema, step)) is not None:
        return kind
    return cast("Schema | None", schema.get("properties", {}).get(step))


def _describe_names(schema: Schema, given: str) -> str | None:
    names = sorted(schema.get("properties", {}))
    if not names:
        return None
    close = difflib.get_close_matches(given, names, n=1)
    meant = f"{close[0]} (perhaps meant), among " if close else ""
    return f"{meant}{', '.join(names[:_MOST_NAMES])}"


def _describe(document: Schema, schema: Schema) -> str:
    is_nullable = any(option.get("type") == "null" for option in schema.get("anyOf", ()))
    schema = _resolved(document, schema)
    words = _describe_value(document, schema)
    return f"{words}, or null" if words and is_nullable else words


def _describe_value(document: Schema, schema: Schema) -> str:  # noqa: PLR0911 -- one return per type
    if "const" in schema:
        return repr(schema["const"])
    if "enum" in schema:
        return ", ".join(repr(value) for value in schema["enum"])
    match schema.get("type"):
        case "integer":
            return f"a whole number{_describe_range(schema)}"
        case "number":
            return f"a finite number{_describe_range(schema)}"
        case "boolean":
            return "true or false"
        case "string":
            return f"text{_describe_length(schema)}"
        case "array":
            return f"a list of: {_describe(document, schema.get('items', {})) or 'anything'}"
        case "object":
            names = ", ".join(sorted(schema.get("properties", {}))[:_MOST_NAMES])
            return f"an object with: {names}" if names else "an object"
    return ""


def _describe_range(schema: Schema) -> str:
    bounds = []
    if "minimum" in schema:
        bounds.append(f"from {schema['minimum']:g}")
    if "exclusiveMinimum" in schema:
        bounds.append(f"above {schema['exclusiveMinimum']:g}")
    if "maximum" in schema:
        bounds.append(f"to {schema['maximum']:g}")
    if "exclusiveMaximum" in schema:
        bounds.append(f"below {schema['exclusiveMaximum']:g}")
    return f", {' '.join(bounds)}" if bounds else ""


def _describe_length(schema: Schema) -> str:
    bounds = []
    if "minLength" in schema:
        bounds.append(f"at least {schema['minLength']}")
    if "maxLength" in schema:
        bounds.append(f"at most {schema['maxLength']}")
    return f" of {' and '.join(bounds)} characters" if bounds else ""
