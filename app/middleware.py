"""What happens to every request before its route: an id, a line in the log, its time, room for it, a limit on its body.

Pure ASGI: Starlette's BaseHTTPMiddleware would buffer nothing but cost a task and a queue a request.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import BodyTooLarge, BodyTooSlow
from app.inference.errors import EngineFull
from app.pending_bytes import HeldBytes, PendingBytes
from app.predicting_routes import PredictingRoute, is_kept_in_memory, predicting_route
from app.problems import answer, instance_of

access_log = logging.getLogger("fovea.access")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
_QUIET_PATHS = frozenset({"/healthz", "/readyz", "/metrics", "/ping", "/v2/health/live", "/v2/health/ready"})
_CLIENT_WENT = 499  # nginx's number for a client that did not wait
_Refusal = BodyTooLarge | BodyTooSlow | EngineFull
_REFUSALS = (BodyTooLarge, BodyTooSlow, EngineFull)
_LINGER_S = 2.0
_READ_TO_THE_END_BYTES = 1024**2  # a body so small costs less to read than a new connection


class RequestMiddleware:
    """Gives every request an id, a log line and `Server-Timing`."""

    def __init__(self, app: ASGIApp, count: Callable[[str, str, int], None]) -> None:
        """count: is told the method, the route's template and the status of every answer."""
        self._app = app
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_at = time.perf_counter()
        given_id = _header(scope, b"x-request-id")
        request_id = given_id if _REQUEST_ID.fullmatch(given_id) else os.urandom(16).hex()
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0
        is_whole = False

        async def send_with_id(message: Message) -> None:
            nonlocal status, is_whole
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                    (b"server-timing", b"total;dur=%.1f" % ((time.perf_counter() - started_at) * 1000)),
                ]
                message = {**message, "headers": headers}
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
            _log_access(scope, status, time.perf_counter() - started_at)
            self._count(scope["method"], getattr(scope.get("route"), "path_format", ""), status)


class RoomMiddleware:
    """Refuses predictions that a full engine would refuse, before routing and before anything of the body is read."""

    def __init__(self, app: ASGIApp, check_room: Callable[[Scope, PredictingRoute], None]) -> None:
        """check_room: raises EngineFull."""
        self._app = app
        self._check_room = check_room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = predicting_route(scope) if scope["type"] == "http" else None
        if route is not None:
            try:
                self._check_room(scope, route)
            except EngineFull as error:
                scope["route"] = route  # as routing would, for whoever counts
                await _refuse(scope, receive, send, error)
                return
        await self._app(scope, receive, send)


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
        declared_bytes = _declared_bytes(scope)
        try:
            if declared_bytes > limit_bytes:
                raise _too_large(limit_bytes)
            if held is not None:
                self._pending.check(declared_bytes)
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
    if isinstance(error, EngineFull) and _ends_soon(scope):
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


def _ends_soon(scope: Scope) -> bool:
    """Whether the body says that it is small, and comes without being called for."""
    if _header(scope, b"transfer-encoding") or _header(scope, b"expect"):
        return False
    return _declared_bytes(scope) <= _READ_TO_THE_END_BYTES


def _declared_bytes(scope: Scope) -> int:
    """Of the body; 0 where nothing is said."""
    declared = _header(scope, b"content-length")
    return int(declared) if declared.isdecimal() else 0


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


def _header(scope: Scope, name: bytes) -> str:
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return ""


def _log_access(scope: Scope, status: int, duration_s: float) -> None:
    level = logging.DEBUG if scope["path"] in _QUIET_PATHS else logging.INFO
    if not access_log.isEnabledFor(level):
        return
    extra = {
        "request_id": scope["state"]["request_id"],
        "method": scope["method"],
        "path": instance_of(scope),
        "status": status,
        "duration_ms": round(duration_s * 1000, 1),
        "client": (scope.get("client") or ("-",))[0],
    }
    access_log.log(
        level, "%(method)s %(path)s %(status)d %(duration_ms).1f ms %(client)s %(request_id)s", extra, extra=extra
    )
