"""Work for a client ends when the client goes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

log = logging.getLogger(__name__)

Result = TypeVar("Result")


async def while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled when the client goes. Only after the whole body was read.

    Raises ClientDisconnect.
    """
    task = asyncio.current_task()
    assert task is not None
    has_gone = False

    async def watch() -> None:
        nonlocal has_gone
        try:
            while (await request.receive())["type"] != "http.disconnect":
                pass
        except asyncio.CancelledError:  # the work is done
            return
        except Exception:  # nothing more can be heard of the client
            log.exception("a client was given up")
        has_gone = True
        task.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if has_gone and task.uncancel() == 0:  # nobody else wants it to end
            raise ClientDisconnect from None
        raise
    finally:
        watching.cancel()
