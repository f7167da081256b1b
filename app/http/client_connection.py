"""Work for a client ends when the client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

Result = TypeVar("Result")


class ClientConnection:
    """Says when the client at the other end of a connection disconnects. One request at a time listens to it.

    `BoundedHttpProtocol` puts one into the state of every request. Asking ASGI's `receive` instead costs one task per
    request.
    """

    __slots__ = ("is_closed", "on_close")

    def __init__(self) -> None:
        self.is_closed = False
        self.on_close: Callable[[], object] | None = None

    def close(self) -> None:
        """Notes that the connection is lost, and calls `on_close`."""
        self.is_closed = True
        if self.on_close is not None:
            self.on_close()


async def cancel_on_disconnect(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Awaits `work`, and cancels it when the client disconnects.

    Under a server that does not report disconnects, `work` runs to its end. Raises ClientDisconnect.
    """
    connection: ClientConnection | None = getattr(request.state, "client_connection", None)
    if connection is None:
        return await work
    if connection.is_closed:
        work.close()
        raise ClientDisconnect
    task = asyncio.current_task()
    assert task is not None
    connection.on_close = task.cancel
    try:
        return await work
    except asyncio.CancelledError:
        if connection.is_closed and task.uncancel() == 0:  # nothing else has cancelled the task
            raise ClientDisconnect from None
        raise
    finally:
        connection.on_close = None
