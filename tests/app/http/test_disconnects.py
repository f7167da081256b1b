"""Work for a client ends when the client goes, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from app.http.disconnects import Departure, while_connected


def asked_by(departure: Departure) -> Request:
    return Request({"type": "http", "headers": [], "method": "POST", "path": "/", "state": {"departure": departure}})


def outcome_of(work: Coroutine[Any, Any, Any], *, departure: Departure, goes: bool = False) -> Any:
    """What the work gives, within a while; a client that goes does so while it is done."""

    async def run() -> Any:
        async with asyncio.timeout(20):
            asking = asyncio.create_task(while_connected(asked_by(departure), work))
            await asyncio.sleep(0)
            if goes:
                departure.happen()
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


def test_work_of_a_client_that_stays_is_done_and_nobody_is_told_of_later_departures() -> None:
    departure = Departure()
    assert outcome_of(forty_two(), departure=departure) == 42
    departure.happen()
    assert departure.has_happened


def test_work_ends_with_its_client() -> None:
    ended: list[bool] = []
    with pytest.raises(ClientDisconnect):
        outcome_of(never(ended), departure=Departure(), goes=True)
    assert ended == [True]


def test_nothing_is_begun_for_a_client_that_has_gone() -> None:
    ended: list[bool] = []
    departure = Departure()
    departure.happen()
    with pytest.raises(ClientDisconnect):
        outcome_of(never(ended), departure=departure)
    assert ended == []


def test_deadline_of_the_work_is_no_departure() -> None:
    async def late() -> None:
        async with asyncio.timeout(0.01):
            await never()

    with pytest.raises(TimeoutError):
        outcome_of(late(), departure=Departure())


def test_whoever_cancels_the_request_is_heard() -> None:
    async def run() -> None:
        asking = asyncio.create_task(while_connected(asked_by(Departure()), never()))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(run())
