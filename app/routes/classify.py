"""`POST /v1/classify`: images in any of their forms, in; scores, or a picture with them, out."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request
from pydantic import ValidationError
from starlette.responses import Response

from app.dependencies import EngineDep, ServicesDep
from app.errors import MalformedBody, NotAcceptable, TooManyFiles, TooManyImages, UnsupportedBody
from app.inference.engine import Answer, Engine, Selection
from app.inference.errors import ImageUrlError
from app.problems import errors_of, problem_of
from app.routes.answers import file_part, json_answer, problems
from app.schemas.classify import (
    Classification,
    ClassifyRequest,
    ClassifyResponse,
    ImageInfo,
    ImagePrediction,
    ImageSource,
    Timing,
    UsedModel,
)
from app.services import Services
from app.uploads import read_form
from models.errors import ImageError

router = APIRouter(prefix="/v1", tags=["Predict"])

IMAGE_TYPES: Final = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff", "image/avif")
_DRAWN: Final[dict[str, Literal["png", "jpeg"]]] = {"image/png": "png", "image/jpeg": "jpeg"}
_ANSWERS: Final = ("application/json", *_DRAWN)  # the first of those that a client likes equally well
_FETCHES_AT_ONCE = 8

_DOT_PNG = (  # a whole picture of one pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "image": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "Pictures, as many as you like.",
                        }
                    },
                    "required": ["image"],
                }
            },
            "application/json": {
                "schema": {"$ref": "#/components/schemas/ClassifyRequest"},
                "example": {"images": [{"name": "dot.png", "base64": _DOT_PNG}]},
            },
            **{
                kind: {"schema": file_part("The picture itself.")} for kind in ("image/jpeg", "image/png", "image/webp")
            },
        },
    }
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Posted:
    """One image of a request: its bytes, or why there are none."""

    name: str | None
    data: bytes = b""
    error: ImageUrlError | ImageError | None = None


@router.post(
    "/classify",
    response_model=ClassifyResponse,
    summary="Classify images",
    openapi_extra=_BODY,
    responses={
        200: {
            "description": "A prediction an image; or with `Accept: image/png` or `image/jpeg` the picture, labelled",
            "content": {kind: {"schema": file_part("The picture.")} for kind in _DRAWN},
        },
        **problems(400, 404, 406, 413, 415, 422, 503, 504, 507),
    },
)
async def classify(
    request: Request,
    services: ServicesDep,
    engine: EngineDep,
    model: Annotated[
        str,
        Query(
            max_length=200,
            description="`ants-bees` (its production version, else the newest), `ants-bees@staging`, `ants-bees/3`, or "
            "an architecture with pretrained weights: `resnet50`, `resnet50.IMAGENET1K_V2`.",
            examples=["ants-bees"],
        ),
    ],
    top_k: Annotated[int, Query(ge=1, le=100_000, description="Most categories an image; all if there are fewer.")] = 5,
    score_threshold: Annotated[float, Query(ge=0, le=1, description="Least score to answer with; 0 is off.")] = 0.0,
    categories: Annotated[list[str] | None, Query(description="Only these; repeat it, or separate by commas.")] = None,
) -> Response:
    """Says what is on each picture, most probable first.

    Pictures come as a form (`image`, once or many times), as the body itself (`Content-Type: image/jpeg`, …), or as
    JSON (`base64` or, where the operator allows the host, `url`). EXIF orientation is honoured. A picture that cannot
    be read has its `error` in its place; if none can be read, the first one's error is the answer.
    """
    drawn_as = _wanted_picture(request.headers.get("accept", ""))
    posted = await _read_images(request, services)
    if drawn_as is not None and len(posted) != 1:
        raise NotAcceptable(
            f"A picture with the predictions drawn on it is made of one image, not of {len(posted)}.",
            hint="Send one image, or ask for application/json.",
        )
    selection = Selection(top_k=top_k, score_threshold=score_threshold, categories=_split(categories))
    good = [image for image in posted if image.error is None]
    if not good:
        assert posted[0].error is not None
        raise posted[0].error
    answer = await engine.classify(
        model, [image.data for image in good], selection, timeout_s=services.settings.request_timeout_s
    )
    if drawn_as is not None:
        return await _draw(engine, good[0], answer, drawn_as)
    return json_answer(_response(request, posted, answer))


def _wanted_picture(accept: str) -> Literal["png", "jpeg"] | None:
    """The kind of picture that the Accept header prefers, or None for JSON. Raises NotAcceptable."""
    best, best_quality = "", 0.0
    for answer in _ANSWERS:
        if (quality := _quality(accept or "*/*", answer)) > best_quality:
            best, best_quality = answer, quality
    if not best:
        raise NotAcceptable(f"Predictions cannot be had as {accept[:100]!r}.", hint=f"Accept: {', '.join(_ANSWERS)}.")
    return _DRAWN.get(best)


def _quality(accept: str, kind: str) -> float:
    """How much the header wants `kind`: the q of the entry that fits it most closely. Source: RFC 9110, 12.5.1."""
    fits = {kind: 3, f"{kind.partition('/')[0]}/*": 2, "*/*": 1}
    closest, quality = 0, 0.0
    for entry in accept.split(","):
        name, *parameters = (part.strip().lower() for part in entry.split(";"))
        if fits.get(name, 0) > closest:
            closest = fits[name]
            weights = [part[2:] for part in parameters if part.startswith("q=")]
            quality = float(weights[0]) if weights and weights[0].replace(".", "", 1).isdecimal() else 1.0
    return quality


async def _read_images(request: Request, services: Services) -> list[_Posted]:
    """Raises what a body can be refused for; an image behind a URL that cannot be had is an error of its own."""
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    limit = services.settings.max_images_per_request
    if kind == "multipart/form-data":
        try:
            form = await read_form(
                content_type, request.stream(), file_fields=frozenset({"image"}), new_path=None, max_files=limit
            )
        except TooManyFiles as error:
            raise _too_many(limit) from error
        files = form.files.get("image", [])
        if not files:
            sent = ", ".join(sorted(form.fields)) or "nothing"
            raise MalformedBody("The form has no file in the field 'image'.", hint=f"It has: {sent}.")
        return [_Posted(name=file.name or None, data=file.data) for file in files]
    if kind == "application/json":
        return await _from_json(await request.body(), services)
    if kind.startswith("image/") or kind == "application/octet-stream":
        return [_Posted(name=None, data=await request.body())]
    raise UnsupportedBody(
        f"A body of type {kind or 'nothing at all'!r} is not read here.",
        hint=f"Send multipart/form-data, application/json, or the picture itself as {', '.join(IMAGE_TYPES)}.",
    )


async def _from_json(body: bytes, services: Services) -> list[_Posted]:
    try:
        asked = await asyncio.to_thread(ClassifyRequest.model_validate_json, body)  # tens of megabytes of base64
    except ValidationError as error:
        raise errors_of(error, where="body") from error
    limit = services.settings.max_images_per_request
    if len(asked.images) > limit:
        raise _too_many(limit)
    slots = asyncio.Semaphore(_FETCHES_AT_ONCE)

    async def in_turn(source: ImageSource) -> _Posted:
        async with slots:
            return await _from_source(source, services)

    return await asyncio.gather(*map(in_turn, asked.images))


def _too_many(limit: int) -> TooManyImages:
    return TooManyImages(f"The request has more than {limit} images.", hint="Send them in several requests.")


async def _from_source(source: ImageSource, services: Services) -> _Posted:
    if source.url is None:
        return _Posted(name=source.name, data=source.base64 or b"")
    try:
        return _Posted(name=source.name or source.url, data=await services.image_urls.fetch(source.url))
    except (ImageUrlError, ImageError) as error:
        return _Posted(name=source.name or source.url, error=error)


async def _draw(engine: Engine, image: _Posted, answer: Answer, drawn_as: Literal["png", "jpeg"]) -> Response:
    (scores,) = answer.images
    if isinstance(scores, ImageError):
        raise scores
    picture = await engine.draw(image.data, scores.classes, drawn_as)
    return Response(picture, media_type=f"image/{drawn_as}")


def _response(request: Request, posted: list[_Posted], answer: Answer) -> ClassifyResponse:
    """Raises the first image's error if there is no prediction at all."""
    entries = iter(answer.images)
    outcomes = [image.error or next(entries) for image in posted]
    errors = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    if len(errors) == len(outcomes):
        raise errors[0]
    predictions = []
    for image, outcome in zip(posted, outcomes, strict=True):
        if isinstance(outcome, Exception):
            info = ImageInfo(name=image.name)
            predictions.append(ImagePrediction(image=info, error=problem_of(outcome, request.scope)))
            continue
        info = ImageInfo(name=image.name, width=outcome.width, height=outcome.height)
        classes = [Classification(label=row.label, index=row.index, score=row.score) for row in outcome.classes]
        predictions.append(ImagePrediction(image=info, classes=classes))
    return ClassifyResponse(
        model=UsedModel(name=answer.model.name, version=answer.model.version, architecture=answer.model.architecture),
        predictions=predictions,
        timing_ms=Timing(
            decode=round(answer.times.decode_ms, 2),
            queue=round(answer.times.queue_ms, 2),
            inference=round(answer.times.inference_ms, 2),
        ),
    )


def _split(categories: list[str] | None) -> frozenset[str]:
    return frozenset(part.strip() for entry in categories or () for part in entry.split(",") if part.strip())
