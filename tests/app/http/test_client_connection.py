"""Work for a client ends when the client goes, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from app.http.client_connection import ClientConnection, cancel_on_disconnect
from tests.waiting import BRIEF_S, PATIENCE_S


def asked_by(connection: ClientConnection) -> Request:
    return Request(
        {"type": "http", "headers": [], "method": "POST", "path": "/", "state": {"client_connection": connection}}
    )


def outcome_of(work: Coroutine[Any, Any, Any], *, connection: ClientConnection, goes: bool = False) -> Any:
    """What the work gives, within a while; a client that goes does so while it is done."""

    async def run() -> Any:
        async with asyncio.timeout(PATIENCE_S):
            asking = asyncio.create_task(cancel_on_disconnect(asked_by(connection), work))
            await asyncio.sleep(0)
            if goes:
                connection.close()
            return await asking

    return asyncio.run(run())


async def forty_two() -> int:
    await asyncio.sleep(0.001)
    return 42


async def never(ended: list[bool] | None = None) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        if ended is not None:
            ended.append(True)


def test_work_of_a_client_that_stays_is_done_and_later_disconnects_are_ignored() -> None:
    connection = ClientConnection()
    assert outcome_of(forty_two(), connection=connection) == 42
    connection.close()
    assert connection.is_closed


def test_work_ends_with_its_client() -> None:
    ended: list[bool] = []
    with pytest.raises(ClientDisconnect):
        outcome_of(never(ended), connection=ClientConnection(), goes=True)
    assert ended == [True]


def test_nothing_is_begun_for_a_client_that_has_gone() -> None:
    ended: list[bool] = []
    connection = ClientConnection()
    connection.close()
    with pytest.raises(ClientDisconnect):
        outcome_of(never(ended), connection=connection)
    assert ended == []


def test_deadline_of_the_work_is_no_disconnect() -> None:
    async def late() -> None:
        async with asyncio.timeout(BRIEF_S):
            await never()

    with pytest.raises(TimeoutError):
        outcome_of(late(), connection=ClientConnection())


def test_whoever_cancels_the_request_is_heard() -> None:
    async def run() -> None:
        asking = asyncio.create_task(cancel_on_disconnect(asked_by(ClientConnection()), never()))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(run())


def test_without_notice_of_disconnects_the_work_is_done() -> None:
    request = Request({"type": "http", "headers": [], "method": "POST", "path": "/", "state": {}})
    assert asyncio.run(cancel_on_disconnect(request, forty_two())) == 42
