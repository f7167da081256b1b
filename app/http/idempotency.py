"""Idempotency-Key: a POST that is sent twice creates one thing, and both requests get the same answer.

Only successful answers are stored. A request that failed created nothing, so it may be sent again under its key, also
with a corrected payload. Design after draft-ietf-httpapi-idempotency-key-header-07.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.responses import Response

from app.errors import IdempotencyMismatch, MalformedIdempotencyKey, RequestInProgress
from workers.errors import StoreUnavailable
from workers.jobs.idempotency_store import IdempotencyStore, InFlight, StoredAnswer

log = logging.getLogger(__name__)

REPLAYED = "Idempotent-Replayed"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_KEPT_HEADERS = ("content-type", "location")
_RENEW_EVERY_S = 20.0


class Idempotency:
    """Answers a request once per Idempotency-Key; a request without a key is answered every time."""

    def __init__(self, store: IdempotencyStore, *, scope: str, key: str | None) -> None:
        """scope: method and path, to which the key is limited. Raises MalformedIdempotencyKey."""
        if key is not None and not _KEY.fullmatch(key):
            raise MalformedIdempotencyKey(
                "An Idempotency-Key is 1 to 255 visible ASCII characters.", hint="For instance a UUID."
            )
        self._store = store
        self._scope = scope
        self._key = key
        self._owner = uuid.uuid4().hex

    async def answer(self, read: Callable[[], Awaitable[str]], make: Callable[[], Awaitable[Response]]) -> Response:
        """The answer of `make`, or its earlier answer to the same key and payload.

        read: reads the payload and returns its digest. Raises RequestInProgress, IdempotencyMismatch, and
        StoreUnavailable when there is a key but no Redis; then nothing is created.
        """
        key = self._key
        if key is None:
            await read()
            return await make()
        claim = await asyncio.to_thread(self._store.claim, self._scope, key, owner=self._owner)
        match claim:
            case InFlight():
                raise RequestInProgress(
                    "The first request with this Idempotency-Key has not been answered yet.",
                    hint="Send it again later; nothing is created twice.",
                )
            case StoredAnswer():
                return _replayed(claim, await read())
        return await self._make_once(key, read, make)

    async def _make_once(
        self, key: str, read: Callable[[], Awaitable[str]], make: Callable[[], Awaitable[Response]]
    ) -> Response:
        has_made = False
        try:
            async with self._kept_alive(key):
                fingerprint = await read()
                response = await make()
            if response.status_code < 400:
                has_made = True
                await self._keep(key, fingerprint, response)
            return response
        finally:
            if not has_made:
                with contextlib.suppress(StoreUnavailable):  # the claim expires by itself
                    await asyncio.shield(asyncio.to_thread(self._store.release, self._scope, key, owner=self._owner))

    async def _keep(self, key: str, fingerprint: str, response: Response) -> None:
        answer = StoredAnswer(
            fingerprint=fingerprint,
            status=response.status_code,
            headers={name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers},
            body=bytes(response.body).decode(),
        )
        try:
            await asyncio.to_thread(self._store.complete, self._scope, key, answer, owner=self._owner)
        except StoreUnavailable as error:
            log.warning("the answer for an Idempotency-Key could not be stored: %s", error)

    @asynccontextmanager
    async def _kept_alive(self, key: str) -> AsyncIterator[None]:
        async def renew() -> None:
            while True:
                await asyncio.sleep(_RENEW_EVERY_S)
                with contextlib.suppress(StoreUnavailable):
                    await asyncio.to_thread(self._store.renew, self._scope, key, owner=self._owner)

        renewal = asyncio.create_task(renew())
        try:
            yield
        finally:
            renewal.cancel()


def _replayed(stored: StoredAnswer, fingerprint: str) -> Response:
    if fingerprint != stored.fingerprint:
        raise IdempotencyMismatch(
            "This Idempotency-Key belongs to a request with another payload.", hint="Use a new key for a new request."
        )
    return Response(stored.body, status_code=stored.status, headers={**stored.headers, REPLAYED: "true"})
