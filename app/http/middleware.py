"""What happens to every request before its route: an id, a line in the log, its time, a limit on its body.

Pure ASGI: Starlette's BaseHTTPMiddleware would buffer nothing but cost a task and a queue a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.engine.errors import EngineFull
from app.errors import BodyTooLarge, BodyTooSlow
from app.http.access_log import Count, RequestNotes
from app.http.pending_bytes import HeldBytes, PendingBytes
from app.http.predicting_routes import PredictingRoute, is_kept_in_memory, predicting_route
from app.http.problems import answer
from app.http.request_heads import declared_bytes, ends_soon

_CLIENT_WENT: Final = 499  # nginx's number for a client that did not wait
_Refusal = BodyTooLarge | BodyTooSlow | EngineFull
_REFUSALS: Final = (BodyTooLarge, BodyTooSlow, EngineFull)
_LINGER_S: Final = 2.0


class RequestMiddleware:
    """Gives every request an id, a log line and `Server-Timing`."""

    def __init__(self, app: ASGIApp, count: Count) -> None:
        self._app = app
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        notes = RequestNotes(scope, self._count)
        status = 0
        is_whole = False

        async def send_with_id(message: Message) -> None:
            nonlocal status, is_whole
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *notes.headers()]}
            else:
                is_whole = not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            status = _CLIENT_WENT
        except Exception:
            if not is_whole:  # the server must cut the connection, or the client takes half an answer for whole
                raise
        finally:
            notes.end(status)


class BodyLimitMiddleware:
    """Refuses a body as soon as it is, or says it will be, too large; the rest is not read.

    413: larger than its route allows. 503: more than there is room for beside those of other requests. 408: it is to be
    kept in memory, and does not come.
    """

    def __init__(
        self,
        app: ASGIApp,
        limit_of: Callable[[Scope], int],
        pending: PendingBytes,
        timeout_s: float,
        note_refusal: Callable[[Scope, PredictingRoute], None],
    ) -> None:
        """pending: where bodies that are kept in memory are counted together; others go to the disk.

        timeout_s: how long such a body may take from its request's head to its end.
        note_refusal: is told of predictions for which there was no room there.
        """
        self._app = app
        self._limit_of = limit_of
        self._pending = pending
        self._timeout_s = timeout_s
        self._note_refusal = note_refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit_bytes = self._limit_of(scope)
        held = HeldBytes(self._pending) if is_kept_in_memory(scope) else None
        body_bytes = declared_bytes(scope)
        try:
            if body_bytes > limit_bytes:
                raise _too_large(limit_bytes)
            if held is not None:
                self._pending.check(body_bytes)
                scope["state"]["held_bytes"] = held  # for what the route makes of the body
        except _REFUSALS as error:
            await self._turn_away(scope, receive, send, error)
            return
        body = _BoundedBody(receive, limit_bytes, held, self._timeout_s)
        has_answered = False

        async def send_unless_refused(message: Message) -> None:
            # whatever the route makes of the exception, the client hears of the limit
            nonlocal has_answered
            if body.refusal is None or has_answered:
                has_answered = True
                await send(message)

        try:
            await self._app(scope, body.receive, send_unless_refused)
        except Exception:
            if has_answered or body.refusal is None:
                raise
        finally:
            if held is not None:
                held.leave()
        if body.refusal is not None and not has_answered:
            # its traceback has what was read of the body, in a circle
            await self._turn_away(scope, receive, send, body.refusal.with_traceback(None))

    async def _turn_away(self, scope: Scope, receive: Receive, send: Send, error: _Refusal) -> None:
        route = predicting_route(scope)
        if route is not None:
            scope.setdefault("route", route)  # as routing would, for whoever counts
            if isinstance(error, EngineFull):
                self._note_refusal(scope, route)
        await _refuse(scope, receive, send, error)


class _BoundedBody:
    """ASGI's `receive` of one request, which raises what `refusal` is from then on."""

    def __init__(self, receive: Receive, limit_bytes: int, held: HeldBytes | None, timeout_s: float) -> None:
        """held: where the body is counted, None if it is not kept in memory and may take its time."""
        self.refusal: _Refusal | None = None
        self._receive = receive
        self._limit_bytes = limit_bytes
        self._held = held
        self._timeout_s = timeout_s
        self._ends_at = None if held is None else asyncio.get_running_loop().time() + timeout_s
        self._received_bytes = 0

    async def receive(self) -> Message:
        """Raises BodyTooLarge, BodyTooSlow, EngineFull."""
        try:
            message = await (self._receive() if self._ends_at is None else self._receive_in_time())
            count = len(message.get("body", b""))  # 0: the client has gone, or has no more to say
            self._received_bytes += count
            if self._held is not None and count:
                self._held.take(count)
            if self._received_bytes > self._limit_bytes:
                raise _too_large(self._limit_bytes)
        except _REFUSALS as error:
            self.refusal = error
            raise
        return message

    async def _receive_in_time(self) -> Message:
        try:
            async with asyncio.timeout_at(self._ends_at):
                message = await self._receive()
        except TimeoutError:
            raise _too_slow(self._timeout_s) from None
        if not message.get("more_body", False):
            self._ends_at = None  # all that can come now is that the client goes
        return message


async def _refuse(scope: Scope, receive: Receive, send: Send, error: _Refusal) -> None:
    """Answers with the error.

    Whoever came at a wrong time with a small body may ask again on the same connection: the server reads over it.
    Others may finish, or stop by themselves, for a moment: a connection closed under a client that still sends is
    reset, and the answer is lost with it.
    """
    response = answer(error, scope)
    if isinstance(error, EngineFull) and ends_soon(scope):
        await response(scope, receive, send)
        return
    headers = [*response.raw_headers, (b"connection", b"close")]
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    try:
        async with asyncio.timeout(_LINGER_S):
            while (message := await receive())["type"] == "http.request" and message.get("more_body"):
                pass
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"The body is larger than the {limit_bytes} bytes that are read here.",
        hint="Send less at a time, or ask the operator whether the limit can be raised.",
    )


def _too_slow(timeout_s: float) -> BodyTooSlow:
    return BodyTooSlow(
        f"The body was not there after {timeout_s:g} s, and a body that is kept in memory may take no longer.",
        hint="Send less at a time, or ask the operator whether the limit can be raised.",
    )
