"""Work for a client ends when the client goes, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from app.disconnects import while_connected

Receive = Callable[[], Awaitable[Message]]


def outcome_of(receive: Receive, work: Callable[[], Awaitable[Any]]) -> Any:
    """What the work gives, within a while."""

    async def run() -> Any:
        async with asyncio.timeout(20):
            request = Request({"type": "http", "headers": [], "method": "POST", "path": "/"}, receive)
            return await while_connected(request, work())  # type: ignore[arg-type]

    return asyncio.run(run())


async def stays() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


async def goes() -> Message:
    return {"type": "http.disconnect"}


async def breaks() -> Message:
    msg = "nothing can be heard"
    raise RuntimeError(msg)


async def forty_two() -> int:
    await asyncio.sleep(0)
    return 42


async def never() -> None:
    await asyncio.Event().wait()


def test_work_of_a_client_that_stays_is_done() -> None:
    assert outcome_of(stays, forty_two) == 42


@pytest.mark.parametrize("receive", [goes, breaks])
def test_work_ends_with_its_client(receive: Receive) -> None:
    ended = []

    async def work() -> None:
        try:
            await never()
        finally:
            ended.append(True)

    with pytest.raises(ClientDisconnect):
        outcome_of(receive, work)
    assert ended == [True]


def test_deadline_of_the_work_is_no_departure() -> None:
    async def late() -> None:
        async with asyncio.timeout(0.01):
            await never()

    with pytest.raises(TimeoutError):
        outcome_of(stays, late)


def test_whoever_cancels_the_request_is_heard() -> None:
    async def run() -> None:
        request = Request({"type": "http", "headers": [], "method": "POST", "path": "/"}, stays)
        asking = asyncio.create_task(while_connected(request, never()))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(run())
