"""Turns exceptions into problem details (RFC 9457). Every error that a client sees is made here."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import JsonValue, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from app.engine.errors import InferenceError
from app.errors import UNEXPECTED, ApiError, InvalidValue, Kind, kind_of
from app.http.error_shapes import foreign_error
from app.http.valid_values import describe_valid, kind_of_body
from app.schemas.problem import FieldError, Problem
from models.errors import IncompatibleWeights, ModelsError
from workers.datasets.dataset import Finding
from workers.errors import NO_SPACE, DiskFull, InvalidJob, UnusableDataset, WorkersError

log = logging.getLogger("fovea.errors")

MEDIA_TYPE = "application/problem+json"
_LONGEST_VALUE = 200


def install_problem_handlers(app: FastAPI) -> None:
    """Answers all errors of Fovea and all bad requests as problem details."""
    for raised_on_purpose in (ApiError, InferenceError, ModelsError, WorkersError):
        app.add_exception_handler(raised_on_purpose, _answer_known)
    app.add_exception_handler(OSError, _answer_full_disk)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http)


def problem_of(error: Exception, scope: Scope) -> Problem:
    """The problem details of `error`. For an unexpected error the client sees only the request id."""
    kind = kind_of(error)
    if kind is UNEXPECTED:
        return _problem(kind, scope, detail="Fovea's log has the reason under this request id.")
    return _problem(kind, scope, detail=str(error), hint=getattr(error, "hint", None), **_particulars(error))


def problem_response(problem: Problem, scope: Scope, headers: Mapping[str, str] | None = None) -> Response:
    """The response with the problem, in the shape of the protocol that its path belongs to."""
    foreign = foreign_error(problem, route_path(scope))
    if foreign is not None:
        return JSONResponse(foreign.body, status_code=foreign.status, headers=headers)
    return Response(
        problem.model_dump_json(exclude_none=True), status_code=problem.status, headers=headers, media_type=MEDIA_TYPE
    )


def answer(error: Exception, scope: Scope) -> Response:
    """The response to an error, with `Retry-After` where waiting helps."""
    retry_after_s = getattr(error, "retry_after_s", None) or kind_of(error).retry_after_s
    headers = dict(getattr(error, "headers", {}))
    if retry_after_s:
        headers["Retry-After"] = str(retry_after_s)
    return problem_response(problem_of(error, scope), scope, headers)


def answer_unexpected(error: Exception, scope: Scope) -> Response:
    """The answer to an error that nothing else answered. The log has the error, the client only the request id."""
    request_id = scope["state"]["request_id"]
    line = "request %s: %s %s broke"
    log.error(line, request_id, scope["method"], instance_of(scope), exc_info=error, extra={"request_id": request_id})
    return answer(error, scope)


async def _answer_known(request: Request, error: Exception) -> Response:
    return answer(error, request.scope)


async def _answer_full_disk(request: Request, error: Exception) -> Response:
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        hint = "Delete old datasets, jobs or model versions, or give FOVEA_HOME a larger disk."
        return answer(DiskFull("The disk of FOVEA_HOME is full.", hint=hint), request.scope)
    raise error


async def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    broken = next((item for item in error.errors() if item["type"] == "json_invalid"), None)
    if broken is not None:
        kind = Kind(400, "malformed_body", "The body cannot be read")
        at = f", at byte {broken['loc'][-1]}" if isinstance(broken["loc"][-1], int) else ""
        detail = f"The body is not valid JSON: {broken.get('ctx', {}).get('error', broken['msg'])}{at}."
        return problem_response(_problem(kind, request.scope, detail=detail), request.scope)
    document = await asyncio.to_thread(request.app.openapi)
    errors = tuple(_field_error(request, document, item) for item in error.errors())
    return problem_response(
        _problem(kind_of(InvalidValue("", field="")), request.scope, **_summary(errors)), request.scope
    )


async def _answer_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase
    path, root = instance_of(request.scope), request.scope.get("root_path", "")
    headers, hint = error.headers, None
    match error.status_code:
        case 404:
            kind, detail, hint = (
                Kind(404, "unknown_route", "No such route"),
                f"Nothing is at {path}.",
                f"See {root}/docs.",
            )
        case 405:
            allowed = (error.headers or {}).get("Allow", "")
            if "HEAD" not in allowed:
                allowed = allowed.replace("GET", "GET, HEAD")  # `HeadMiddleware` answers it on every GET route
            headers = {"Allow": allowed}
            kind = Kind(405, "method_not_allowed", "The method is not allowed here")
            detail, hint = f"{request.method} is not allowed at {path}.", f"Allowed: {allowed}."
        case status:
            kind, detail = Kind(status, phrase.lower().replace(" ", "_"), phrase), str(error.detail)
    return problem_response(_problem(kind, request.scope, detail=detail, hint=hint), request.scope, headers)


def route_path(scope: Scope) -> str:
    """The request's path without the prefix that a proxy has taken off."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def instance_of(scope: Scope) -> str:
    """The request's path, percent-encoded as it was sent."""
    raw = scope.get("raw_path")
    return raw.decode("ascii", "replace") if raw else quote(scope.get("path", ""))


def _problem(kind: Kind, scope: Scope, *, detail: str, **members: Any) -> Problem:
    return Problem(
        type=f"urn:fovea:problem:{kind.code}",
        title=kind.title,
        status=kind.status,
        detail=detail,
        instance=instance_of(scope),
        code=kind.code,
        request_id=scope.get("state", {}).get("request_id", "none"),
        **members,
    )


def _particulars(error: Exception) -> dict[str, Any]:
    match error:
        case InvalidValue():
            return {"errors": (error.error,)}
        case InvalidJob():
            return {"errors": (FieldError(field=error.field, where="body", message=str(error), valid=error.hint),)}
        case UnusableDataset():
            return {"findings": tuple(Finding.model_validate(problem) for problem in error.problems)}
        case IncompatibleWeights():
            return {"missing": error.missing, "unexpected": error.unexpected, "mismatched": error.mismatched}
    return {}


def _summary(errors: Sequence[FieldError]) -> dict[str, Any]:
    first = errors[0]
    more = f" And {len(errors) - 1} more, see `errors`." if len(errors) > 1 else ""
    hint = f"Valid for {first.field}: {first.valid}." if first.valid else None
    return {"detail": f"{first.field}: {first.message}.{more}", "hint": hint, "errors": tuple(errors)}


def _field_error(request: Request, document: dict[str, Any], item: dict[str, Any]) -> FieldError:
    where, *path = item["loc"]
    route_path = getattr(request.scope.get("route"), "path_format", "")
    operation = document["paths"].get(route_path, {}).get(request.method.lower(), {})
    if where == "body" and path and kind_of_body(document, operation, str(path[0])) is not None:
        path = path[1:]  # the name of the kind of body, which is not a field
    said = item.get("ctx", {})  # an error's own description is better than the document's
    return FieldError(
        field=said.get("field") or _text(".".join(str(step) for step in path)) or str(where),
        where=str(where),
        message=str(item["msg"]),
        value=None if item["type"] == "missing" else json_safe(item.get("input")),
        valid=said.get("valid") or describe_valid(document, operation, item["loc"]),
    )


def errors_of(error: ValidationError, *, where: str, within: str | None = None) -> RequestValidationError:
    """The error of a validation that a route did itself, in FastAPI's form. within: the field that held the JSON."""
    place = (where,) if within is None else (where, within)
    kind = {} if within is None else {"type": "invalid"}  # invalid JSON in a field is not a malformed body
    return RequestValidationError([{**item, **kind, "loc": (*place, *item["loc"])} for item in error.errors()])


def json_safe(value: Any) -> JsonValue:
    """`value` for an error message: shortened, and as text if JSON cannot express it (NaN, bytes)."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case bytes():
            return f"{len(value)} bytes"
    return _text(str(value))


def _text(text: str) -> str:
    """The text, shortened and without lone surrogates, which UTF-8 cannot encode."""
    clean = text.encode("utf-8", "replace").decode()
    return clean if len(clean) <= _LONGEST_VALUE else clean[:_LONGEST_VALUE] + "…"
