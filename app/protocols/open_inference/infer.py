"""`POST /v2/models/{model}/infer`: tensors in, tensors out."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from fastapi import APIRouter, Request
from starlette.responses import Response
from torch import Tensor

from app.dependencies import ServicesDep, UrgencyDep
from app.http.client_connection import cancel_on_disconnect
from app.http.refusals import PREDICTION, held_by, takes_body
from app.http.server_timing import server_timing
from app.http.urgency import Urgency
from app.protocols.open_inference.answers import Written, write_outputs
from app.protocols.open_inference.inputs import Image, InputLimits, images_of
from app.protocols.open_inference.messages import InferRequest, RequestParameters
from app.protocols.open_inference.outputs import WantedOutput, selection_of, wanted_outputs
from app.protocols.open_inference.request_body import HEADER_LENGTH, parse_infer
from app.protocols.served_models import ServedModel, find_served
from app.services import Services

router = APIRouter(prefix="/v2", include_in_schema=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """A request, understood."""

    served: ServedModel
    message: InferRequest
    images: list[Image]
    wanted: list[WantedOutput]


@router.post("/models/{model}/infer")
@router.post("/models/{model}/versions/{version}/infer")
@takes_body(PREDICTION)
async def infer(
    request: Request, services: ServicesDep, urgency: UrgencyDep, model: str, version: str | None = None
) -> Response:
    """The model's outputs for the images of the request."""
    body = await request.body()
    header_length = request.headers.get(HEADER_LENGTH)
    asked = await asyncio.to_thread(_understand, services, model, version, body, header_length)
    held_by(request).take(sum(map(_size_bytes, asked.images)))  # copies, while the body stays
    urgency = _urgency(asked.message.parameters, urgency, services.settings.request_timeout_s)
    answer = await cancel_on_disconnect(
        request,
        services.engine.predict(
            asked.served.reference,
            asked.images,
            selection_of(asked.served, asked.message, asked.wanted),
            timeout_s=urgency.timeout_s,
            priority=urgency.priority,
            precision=asked.message.parameters.precision,
        ),
    )
    written = await asyncio.to_thread(
        write_outputs,
        asked.served,
        asked.message,
        asked.wanted,
        answer,
        most_values=services.settings.max_image_pixels,
    )
    return _response(written, server_timing(answer.times))


def _understand(services: Services, model: str, version: str | None, data: bytes, header_length: str | None) -> _Asked:
    """In a thread: it reads the registry, and JSON of megabytes."""
    served = find_served(services.registry, model, version)
    body = parse_infer(data, header_length)
    settings = services.settings
    limits = InputLimits(max_images=settings.max_images_per_request, max_pixels=settings.max_image_pixels)
    return _Asked(
        served=served,
        message=body.message,
        images=images_of(body, served, limits),
        wanted=wanted_outputs(body.message, served),
    )


def _urgency(said: RequestParameters, by_headers: Urgency, most_s: float) -> Urgency:
    """As the parameters say, and the headers where those say nothing."""
    timeout_s = min(said.timeout / 1e6, most_s) if said.timeout else by_headers.timeout_s
    priority = by_headers.priority
    if said.priority:
        priority = "bulk" if said.priority > 1 else "interactive"
    return Urgency(timeout_s=timeout_s, priority=priority)


def _size_bytes(image: Image) -> int:
    return image.nbytes if isinstance(image, Tensor) else len(image)


def _response(written: Written, headers: dict[str, str]) -> Response:
    if not written.binary:
        return Response(written.json, media_type="application/json", headers=headers)
    return Response(
        written.json + written.binary,
        media_type="application/octet-stream",
        headers={HEADER_LENGTH: str(len(written.json)), **headers},
    )
