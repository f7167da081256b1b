"""HEAD: every GET route answers it with the status and headers of a GET, and without the body."""

from __future__ import annotations

from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class HeadMiddleware:
    """Runs a HEAD request as a GET and stops when the head of the response is sent."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        headers = [header for header in scope["headers"] if header[0] != b"range"]  # RFC 9110, 14.2: of a GET only
        as_get = {**scope, "method": "GET", "headers": headers}  # a copy: the server must still see HEAD

        async def send_head(message: Message) -> None:
            scope["route"] = as_get.get("route")  # for the access log and the metrics
            await send(message)
            await send({"type": "http.response.body", "body": b""})
            raise _HeadSent

        with suppress(_HeadSent):
            await self._app(as_get, receive, send_head)


class _HeadSent(Exception):
    """Ends the work for the body, which may be a file or a stream without an end."""
