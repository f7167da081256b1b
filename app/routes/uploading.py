"""Large uploads: written to disk as they arrive, processed in a thread, then deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fastapi import Request
from starlette.responses import Response

from app.errors import UnsupportedBody
from app.http.idempotency import Idempotency
from app.http.uploads import Form, discard, read_form
from app.services import Services


@dataclass(frozen=True, kw_only=True, slots=True)
class Upload:
    """A kind of upload, as messages and checks need it."""

    what: str  # the subject of a sentence in messages
    file_field: str
    example: str  # arguments of a curl command
    check_field: Callable[[str, str], None] = lambda _name, _value: None  # refuses a field before the file has arrived


async def answer_upload(
    upload: Upload,
    make: Callable[[Services, Form], Response],
    *,
    request: Request,
    services: Services,
    idempotency: Idempotency,
) -> Response:
    """The answer of `make` to the form; for a repeated idempotency key, the answer it gave before.

    make: runs in an intake thread. Raises UnsupportedBody, DiskFull, and what `read_form`, `Idempotency.answer` and
    `make` raise.
    """
    received: list[Form] = []

    async def read() -> str:
        received.append(await _receive(upload, request, services))
        return received[0].fingerprint

    async def work() -> Response:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(services.intake, partial(make, services, received[0]))

    try:
        return await idempotency.answer(read, work)
    finally:
        for form in received:
            await asyncio.shield(asyncio.to_thread(discard, form))


async def _receive(upload: Upload, request: Request, services: Services) -> Form:
    content_type = request.headers.get("content-type", "")
    if not content_type.lower().startswith("multipart/form-data"):
        raise UnsupportedBody(
            f"{upload.what} is uploaded as multipart/form-data, not as {content_type or 'nothing'!r}.",
            hint=f"With curl: {upload.example}",
        )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal():
        await asyncio.to_thread(services.spool.check_room, int(declared))
    return await read_form(
        content_type,
        request.stream(),
        file_fields=frozenset({upload.file_field}),
        new_path=services.spool.new_path,
        check_field=upload.check_field,
    )
