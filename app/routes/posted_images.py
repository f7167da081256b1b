"""Images as clients send them: in a form, as the body itself, or in JSON as base64 or as a URL."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from fastapi import Request
from pydantic import ValidationError

from app.engine.errors import ImageUrlError
from app.errors import MalformedBody, TooManyFiles, TooManyImages, UnsupportedBody
from app.http.documented_answers import file_part
from app.http.json_size import has_more_marks
from app.http.problems import errors_of
from app.http.refusals import HeldBytes, held_by
from app.http.uploads import read_form
from app.http.urgency import URGENCY_PARAMETERS
from app.schemas.predict import ImageSource, PredictRequest
from app.services import Services
from models.errors import ImageError

IMAGE_TYPES: Final = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "image/tiff", "image/avif")
_FETCHES_AT_ONCE = 8
_MARKS_OF_AN_IMAGE, _MARKS_BESIDE = 32, 10_000  # an image in JSON has 8 outside its texts; names and URLs have some

# Client generators take one type for all arguments, and JSON where it is among them, with which nobody could send
# `image`. So JSON is described in words, at the operation and at `PredictRequest`.
BODY: Final[dict[str, Any]] = {
    "parameters": URGENCY_PARAMETERS,
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
                            "description": "One or more images.",
                        }
                    },
                    "required": ["image"],
                }
            },
            **{kind: {"schema": file_part("The image itself.")} for kind in ("image/jpeg", "image/png", "image/webp")},
        },
    },
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PostedImage:
    """One image of a request: its bytes, or the error that prevented them."""

    name: str | None
    data: bytes = b""
    error: ImageUrlError | ImageError | None = None


async def read_images(request: Request, services: Services) -> list[PostedImage]:
    """The images of the request. An image whose URL cannot be fetched has its own error.

    Raises MalformedBody, TooManyImages, UnsupportedBody, RequestValidationError and what reading the body raises.
    """
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _from_form(request, content_type, services.settings.max_images_per_request)
    if kind == "application/json":
        return await _from_json(await request.body(), services, held_by(request))
    if kind.startswith("image/") or kind == "application/octet-stream":
        return [PostedImage(name=None, data=await request.body())]
    raise UnsupportedBody(
        f"A body of type {kind or 'nothing at all'!r} is not supported here.",
        hint=f"Send multipart/form-data, application/json, or the image itself as {', '.join(IMAGE_TYPES)}.",
    )


async def _from_form(request: Request, content_type: str, limit: int) -> list[PostedImage]:
    try:
        form = await read_form(
            content_type, request.stream(), file_fields=frozenset({"image"}), new_path=None, max_files=limit
        )
    except TooManyFiles as error:
        raise _too_many(limit) from error
    files = form.files.get("image", [])
    if not files:
        sent = ", ".join(sorted(form.fields)) or "nothing"
        raise MalformedBody("The form has no file in the field 'image'.", hint=f"The form has: {sent}.")
    return [PostedImage(name=file.name or None, data=file.data) for file in files]


async def _from_json(body: bytes, services: Services, held: HeldBytes) -> list[PostedImage]:
    held.take(len(body) * 3 // 4)  # the decoded base64, in memory together with the body
    limit = services.settings.max_images_per_request
    try:
        asked = await asyncio.to_thread(_parsed, body, limit)  # tens of megabytes of base64
    except ValidationError as error:
        raise errors_of(error, where="body") from error
    if len(asked.images) > limit:
        raise _too_many(limit)
    slots = asyncio.Semaphore(_FETCHES_AT_ONCE)

    async def in_turn(source: ImageSource) -> PostedImage:
        async with slots:
            return await _from_source(source, services, held)

    images = [asyncio.create_task(in_turn(source)) for source in asked.images]
    try:
        return await asyncio.gather(*images)
    finally:
        for image in images:
            image.cancel()


def _parsed(body: bytes, limit: int) -> PredictRequest:
    if has_more_marks(body, _MARKS_OF_AN_IMAGE * limit + _MARKS_BESIDE):
        raise _too_many(limit)
    return PredictRequest.model_validate_json(body)


def _too_many(limit: int) -> TooManyImages:
    return TooManyImages(f"The request has more than {limit} images.", hint="Send them in several requests.")


async def _from_source(source: ImageSource, services: Services, held: HeldBytes) -> PostedImage:
    if source.url is None:
        return PostedImage(name=source.name, data=source.base64 or b"")
    try:
        data = await services.image_urls.fetch(source.url, arrived=held.take)
        return PostedImage(name=source.name or source.url, data=data)
    except (ImageUrlError, ImageError) as error:
        return PostedImage(name=source.name or source.url, error=error)
