"""The outermost middleware: an id, a line in the log, the duration, and an answer to every unexpected error.

Pure ASGI: Starlette's BaseHTTPMiddleware costs a task and a queue per request.
"""

from __future__ import annotations

from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.access_log import AccessLogEntry, Count
from app.http.problems import answer_unexpected

_CLIENT_DISCONNECTED: Final = 499  # nginx's status for a client that did not wait


class RequestMiddleware:
    """Gives every request an id, a log line and `Server-Timing`."""

    def __init__(self, app: ASGIApp, count: Count) -> None:
        self._app = app
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        entry = AccessLogEntry(scope, self._count)
        status = 0
        is_whole = False

        async def send_with_id(message: Message) -> None:
            nonlocal status, is_whole
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *entry.headers()]}
            else:
                is_whole = not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            status = _CLIENT_DISCONNECTED
        except Exception as error:
            response = answer_unexpected(error, scope)
            if status == 0:
                await response(scope, receive, send_with_id)
            elif not is_whole:  # the server cuts the connection, or the client takes half an answer for a whole one
                raise
        finally:
            entry.end(status)
