"""Work for a client ends when the client goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

Result = TypeVar("Result")


class Departure:
    """That of the client at the other end of a connection. One request at a time waits for it.

    To ask ASGI's `receive` instead would take a task a request.
    """

    __slots__ = ("has_happened", "on_happening")

    def __init__(self) -> None:
        self.has_happened = False
        self.on_happening: Callable[[], object] | None = None

    def happen(self) -> None:
        """To be called when the connection is lost."""
        self.has_happened = True
        if self.on_happening is not None:
            self.on_happening()


async def while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled when the client goes.

    Raises ClientDisconnect.
    """
    departure: Departure = request.state.departure
    if departure.has_happened:
        work.close()
        raise ClientDisconnect
    task = asyncio.current_task()
    assert task is not None
    departure.on_happening = task.cancel
    try:
        return await work
    except asyncio.CancelledError:
        if departure.has_happened and task.uncancel() == 0:  # nobody else wants it to end
            raise ClientDisconnect from None
        raise
    finally:
        departure.on_happening = None
