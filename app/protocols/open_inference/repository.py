"""`/v2/repository`: the index of models, and loading and unloading."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from fastapi import APIRouter, Request
from pydantic import JsonValue
from starlette.responses import JSONResponse, Response

from app.dependencies import ServicesDep
from app.engine.model_control import ModelStates
from app.errors import MalformedBody
from app.http.refusals import BodyRule, takes_body
from app.protocols.open_inference.messages import IndexRequest, LoadRequest
from app.protocols.open_inference.request_body import parse_message
from app.protocols.served_models import PRETRAINED_VERSION, find_served
from models.errors import UnknownModel
from models.store.registry import Registry

log = logging.getLogger(__name__)

_MAX_BODY_BYTES: Final = 64 * 1024

router = APIRouter(prefix="/v2/repository", include_in_schema=False)

_CONTROL: Final = BodyRule(  # small, because the event loop parses it
    limit_bytes=lambda settings: min(_MAX_BODY_BYTES, settings.max_body_bytes), is_in_memory=True
)


@router.post("/index")
@takes_body(_CONTROL)
async def index(request: Request, services: ServicesDep) -> Response:
    """Lists every version of the registry, and loaded pretrained weights."""
    body = await request.body()
    wanted = parse_message(body, IndexRequest)
    entries = await asyncio.to_thread(_entries, services.registry, await services.model_control.states())
    return JSONResponse([entry for entry in entries if not wanted.ready or entry["state"] == "READY"])


@router.post("/models/{model}/load")
@takes_body(_CONTROL)
async def load(request: Request, services: ServicesDep, model: str) -> Response:
    """Loads the version that the name means now. Raises ModelLoading if that takes longer than a request may."""
    body = await request.body()
    if parse_message(body, LoadRequest).parameters:
        raise MalformedBody(
            "A model's configuration and files cannot be sent with the request.",
            hint="Publish a version of it: /v1/models.",
        )
    served = await asyncio.to_thread(find_served, services.registry, model)
    await services.model_control.load(served.reference)
    return Response()


@router.post("/models/{model}/unload")
@takes_body(_CONTROL)
async def unload(request: Request, services: ServicesDep, model: str) -> Response:
    """Unloads every version of the model; for an alias or pretrained weights, the one that it means."""
    body = await request.body()
    parse_message(body, LoadRequest)
    served = await asyncio.to_thread(find_served, services.registry, model)
    references = {served.reference}
    if len(served.versions) > 1:
        references |= {f"{model}/{version}" for version in served.versions}
    await services.model_control.unload(sorted(references))
    return Response()


def _entries(registry: Registry, states: ModelStates) -> list[dict[str, JsonValue]]:
    """The entries of the index. Reads the registry, in a thread."""
    found = []
    for name in registry.names():
        try:
            versions = registry.versions(name)
        except UnknownModel as error:  # deleted in the meantime
            log.info("%s is left out of the index: %s", name, error)
            continue
        found += [_entry(states, name, version, f"{name}/{version}") for version in versions]
    return found + [_entry(states, reference, PRETRAINED_VERSION, reference) for reference in states.pretrained]


def _entry(states: ModelStates, name: str, version: int, reference: str) -> dict[str, JsonValue]:
    if not states.answers(reference):
        state, reason = "UNAVAILABLE", "unloaded" if reference in states.unloaded else "it could not be loaded"
    else:
        state, reason = "READY", "" if reference in states.loaded else "the first request loads it"
    return {"name": name, "version": str(version), "state": state, "reason": reason}
