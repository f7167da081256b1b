"""Refuses requests that the server cannot take, before their bodies are read.

One middleware judges the length of a body, the bytes that all requests hold in memory, the time that a body takes, and
the places for images in the engine. A route says with `@takes_body` what its body may be; the middleware asks the
routes themselves which one a request is for.

    400  the body is not what its Content-Encoding says
    413  the body is larger than its route allows, as sent or unpacked
    415  the body has a Content-Encoding that is not supported
    503  the engine, or the memory for bodies, is full; `Retry-After` says when to come back
    408  a body that is kept in memory did not arrive in time
    422  a header that decides about the order of predictions is not valid
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.datastructures import Headers, QueryParams
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.engine.engine import Engine
from app.engine.errors import EngineFull
from app.errors import BodyTooLarge, BodyTooSlow, InvalidValue, MalformedBody, UnsupportedBody
from app.http.content_encoding import unpacking_receive
from app.http.problems import answer
from app.http.urgency import urgency_of
from app.settings import ApiSettings

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

_Refusal = BodyTooLarge | BodyTooSlow | EngineFull | InvalidValue | MalformedBody | UnsupportedBody
_REFUSALS: Final = (BodyTooLarge, BodyTooSlow, EngineFull, InvalidValue, MalformedBody, UnsupportedBody)
_LINGER_S: Final = 2.0
_READ_TO_THE_END_BYTES: Final = 1024**2  # reading a body this small costs less than a new connection
_RULE: Final = "fovea_body_rule"  # the attribute of an endpoint


@dataclass(frozen=True, kw_only=True, slots=True)
class BodyRule:
    """What the body of a route may be."""

    limit_bytes: Callable[[ApiSettings], int]
    is_in_memory: bool = False  # counted with the bodies of all other requests, and bounded in time
    predicts: bool = False  # takes places in the engine


DEFAULT: Final = BodyRule(limit_bytes=lambda settings: settings.max_body_bytes)
PREDICTION: Final = BodyRule(limit_bytes=lambda settings: settings.max_body_bytes, is_in_memory=True, predicts=True)


def takes_body(rule: BodyRule) -> Callable[[Endpoint], Endpoint]:
    """Decorates an endpoint whose body is not of the `DEFAULT` kind. It goes below the route's decorator."""

    def decorate(endpoint: Endpoint) -> Endpoint:
        setattr(endpoint, _RULE, rule)
        return endpoint

    return decorate


class PendingBytes:
    """Counts the bytes that all requests hold in memory. Used from one event loop."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.pending = 0

    def check(self, more: int = 0) -> None:
        """Raises EngineFull if `more` bytes would exceed the limit."""
        if self.pending + more > self.most:
            raise EngineFull(
                f"Requests of {self.pending} bytes are pending, and the limit is {self.most} bytes.",
                hint="Send it again in a moment.",
            )


class HeldBytes:
    """Counts the bytes that one request holds, from its first byte until it is answered or given up."""

    def __init__(self, pending: PendingBytes) -> None:
        self._pending = pending
        self._held = 0
        self._is_over = False

    def take(self, count: int) -> None:
        """Adds `count` bytes to this request's share. They stay counted even when this raises.

        Raises EngineFull; BodyTooLarge if this request alone exceeds the limit of all.
        """
        if self._is_over:  # the request was given up while a thread still worked for it
            return
        self._held += count
        self._pending.pending += count
        if self._held > self._pending.most:
            raise BodyTooLarge(
                f"The request takes more than {self._pending.most} bytes of memory, which is the limit.",
                hint="Send fewer images at a time, or ask the operator to raise FOVEA_MAX_PENDING_BYTES.",
            )
        self._pending.check()

    def leave(self) -> None:
        """Gives all bytes back."""
        self._is_over = True
        self._pending.pending -= self._held


def held_by(request: Request) -> HeldBytes:
    """The bytes that the request holds; code that makes more of a body than arrived adds to them."""
    held: HeldBytes = request.state.held_bytes
    return held


class RefusalMiddleware:
    """Refuses a request as soon as its head, or what has arrived of its body, shows that it cannot be taken."""

    def __init__(self, app: ASGIApp, routers: Sequence[APIRouter], settings: ApiSettings) -> None:
        """routers: those of the application, included without a prefix of their own."""
        self._app = app
        self._routes: list[tuple[APIRoute, BodyRule]] = [
            (route, getattr(route.endpoint, _RULE))
            for router in routers
            for route in router.routes
            if isinstance(route, APIRoute) and hasattr(route.endpoint, _RULE)
        ]
        self._settings = settings
        self._pending = PendingBytes(settings.max_pending_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        rule = self._find_rule(scope)
        limit_bytes = rule.limit_bytes(self._settings)
        held = HeldBytes(self._pending) if rule.is_in_memory else None
        try:
            self._check_head(scope, rule, limit_bytes)
            unpacked = unpacking_receive(scope, receive, limit_bytes)
        except _REFUSALS as error:
            await self._refuse(scope, receive, send, error, rule)
            return
        body = _BoundedBody(unpacked, limit_bytes, held, self._settings.body_timeout_s)
        if held is not None:
            scope["state"]["held_bytes"] = held
        has_answered = False

        async def send_unless_refused(message: Message) -> None:
            # A route may turn the refusal into another error: the client is sent the refusal itself.
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
            # The traceback holds what was read of the body, in a reference cycle.
            await self._refuse(scope, receive, send, body.refusal.with_traceback(None), rule)

    def _find_rule(self, scope: Scope) -> BodyRule:
        for route, rule in self._routes:
            match, child_scope = route.matches(scope)
            if match is Match.FULL:
                # Routing sets the same. A request that is refused never gets there, and is counted for its route.
                scope["route"], scope["path_params"] = route, child_scope["path_params"]
                return rule
        return DEFAULT

    def _check_head(self, scope: Scope, rule: BodyRule, limit_bytes: int) -> None:
        """Raises BodyTooLarge, EngineFull, InvalidValue."""
        declared_bytes = _declared_bytes(scope)
        if declared_bytes > limit_bytes:
            raise _too_large(limit_bytes)
        if rule.predicts:
            urgency = urgency_of(scope, longest_s=self._settings.request_timeout_s)
            _engine(scope).check_room(urgency.priority, urgency.timeout_s)
            scope["state"]["urgency"] = urgency
        if rule.is_in_memory:
            self._pending.check(declared_bytes)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, error: _Refusal, rule: BodyRule) -> None:
        """Answers with the error.

        A client whose body is small keeps its connection: the server reads the rest of the body and drops it. Other
        clients get a moment to finish: a connection that is closed while the client sends is reset, and the client
        never reads the answer.
        """
        if rule.predicts and isinstance(error, EngineFull):
            _engine(scope).note_refusal(_model_of(scope))
        response = answer(error, scope)
        if not isinstance(error, BodyTooLarge | BodyTooSlow) and _ends_soon(scope):
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


class _BoundedBody:
    """ASGI's `receive` of one request. Once a limit is exceeded it raises, and `refusal` says why."""

    def __init__(self, receive: Receive, limit_bytes: int, held: HeldBytes | None, timeout_s: float) -> None:
        """held: where the body is counted; None for a body that goes to the disk and has no time limit."""
        self.refusal: _Refusal | None = None
        self._receive = receive
        self._limit_bytes = limit_bytes
        self._held = held
        self._timeout_s = timeout_s
        self._ends_at = None if held is None else asyncio.get_running_loop().time() + timeout_s
        self._received_bytes = 0

    async def receive(self) -> Message:
        """Raises BodyTooLarge, BodyTooSlow, EngineFull, MalformedBody."""
        try:
            message = await (self._receive() if self._ends_at is None else self._receive_in_time())
            count = len(message.get("body", b""))  # 0 when the client has disconnected
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
            self._ends_at = None  # the body is complete; only a disconnect can follow
        return message


def _engine(scope: Scope) -> Engine:
    engine: Engine = scope["app"].state.services.engine
    return engine


def _model_of(scope: Scope) -> str:
    """The model reference that the path or the query names; empty if there is none."""
    named: dict[str, str] = scope["path_params"]
    if "model" in named:
        return "/".join(named[part] for part in ("model", "version") if part in named)
    return QueryParams(scope["query_string"]).get("model", "")


def _declared_bytes(scope: Scope) -> int:
    """The Content-Length in bytes, or 0 if the header is missing."""
    declared = Headers(scope=scope).get("content-length", "")
    return int(declared) if declared.isdecimal() else 0


def _ends_soon(scope: Scope) -> bool:
    """Whether the body is small and the client sends it without waiting for `100 Continue`."""
    headers = Headers(scope=scope)
    return not ("transfer-encoding" in headers or "expect" in headers) and (
        _declared_bytes(scope) <= _READ_TO_THE_END_BYTES
    )


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"The body is larger than {limit_bytes} bytes, the limit of this route.",
        hint="Send less at a time, or ask the operator whether the limit can be raised.",
    )


def _too_slow(timeout_s: float) -> BodyTooSlow:
    return BodyTooSlow(
        f"The body did not arrive within {timeout_s:g} s.",
        hint="Send less at a time, or ask the operator whether FOVEA_BODY_TIMEOUT_S can be raised.",
    )
