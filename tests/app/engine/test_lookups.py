"""Lookups: nobody waits for one while somebody asks, and nothing is believed for longer than it holds."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from app.engine.lookups import Lookups


class Registry:
    """What a reference means; lookups wait where `gate` is shut."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.meaning: int | Exception = 1
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    def lookups(
        self, *, holds_s: float = 0.1, on_found: Callable[[str, int], None] = lambda _key, _found: None
    ) -> Lookups[str, int]:
        return Lookups(self.look_up, holds_s=holds_s, on_found=on_found, now=lambda: self.now_s)

    async def look_up(self, key: str) -> int:
        assert key == "digits"
        self.asked += 1
        seen = self.meaning
        await self.gate.wait()
        if isinstance(seen, Exception):
            raise type(seen)(*seen.args)  # a new one, which nobody keeps
        return seen


def run(scenario: Callable[[Registry], Awaitable[None]]) -> None:
    async def within() -> None:
        await scenario(Registry())

    asyncio.run(within())


async def settle() -> None:
    """What is ready to run has run."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_holds_for_its_time_and_is_renewed_beside_the_requests() -> None:
    async def scenario(registry: Registry) -> None:
        found = registry.lookups()
        assert found.fresh("digits") is None
        assert await found.get("digits") == 1
        registry.meaning = 2
        registry.now_s += 0.04
        assert (found.fresh("digits"), registry.asked) == (1, 1)
        registry.now_s += 0.04  # near the end: it holds, and is looked up beside, once
        assert (found.fresh("digits"), found.fresh("digits")) == (1, 1)
        await settle()
        assert registry.asked == 2
        assert found.fresh("digits") == 2

    run(scenario)


def test_nothing_holds_longer_however_slow_lookups_are() -> None:
    async def scenario(registry: Registry) -> None:
        found = registry.lookups()
        await found.get("digits")
        registry.now_s += 0.08
        registry.gate.clear()
        assert found.fresh("digits") == 1
        await settle()
        registry.meaning = 2  # the lookup under way has seen the old one
        registry.now_s += 0.11
        assert found.fresh("digits") is None
        waiting = asyncio.create_task(found.get("digits"))
        await settle()
        assert registry.asked == 3
        registry.gate.set()
        assert await waiting == 2
        assert found.known("digits") == 2

    run(scenario)


def test_one_lookup_serves_all_who_wait_and_outlives_who_gives_up() -> None:
    async def scenario(registry: Registry) -> None:
        found = registry.lookups()
        registry.gate.clear()
        waiting = [asyncio.create_task(found.get("digits")) for _ in range(5)]
        await settle()
        waiting[0].cancel()
        await settle()
        registry.gate.set()
        assert await asyncio.gather(*waiting[1:]) == [1, 1, 1, 1]
        assert registry.asked == 1

    run(scenario)


def test_what_is_forgotten_while_it_is_looked_up_is_not_kept() -> None:
    async def scenario(registry: Registry) -> None:
        told: list[int] = []
        found = registry.lookups(on_found=lambda _, seen: told.append(seen))
        registry.gate.clear()
        early = asyncio.create_task(found.get("digits"))
        await settle()
        registry.meaning = 2
        found.forget()
        late = asyncio.create_task(found.get("digits"))
        await settle()
        registry.gate.set()
        assert (await early, await late) == (1, 2)
        assert found.fresh("digits") == 2
        assert told == [2]

    run(scenario)


def test_what_is_gone_is_said_to_whoever_asks_next() -> None:
    async def scenario(registry: Registry) -> None:
        found = registry.lookups()
        await found.get("digits")
        registry.meaning = LookupError("gone")
        registry.now_s += 0.08
        assert found.fresh("digits") == 1
        await settle()
        assert found.fresh("digits") is None
        with pytest.raises(LookupError, match="gone"):
            await found.get("digits")
        assert found.known("digits") is None

    run(scenario)


def test_without_a_time_every_request_looks() -> None:
    async def scenario(registry: Registry) -> None:
        found = registry.lookups(holds_s=0)
        assert await found.get("digits") == 1
        registry.meaning = 2
        assert found.fresh("digits") is None
        assert await found.get("digits") == 2

    run(scenario)


def test_at_the_end_nothing_is_left_under_way() -> None:
    async def scenario(registry: Registry) -> None:
        found = registry.lookups()
        registry.gate.clear()
        waiting = asyncio.create_task(found.get("digits"))
        await settle()
        found.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(scenario)


def test_failure_holds_nothing_of_whoever_asked() -> None:
    class Body:
        """An image, say."""

    async def scenario(registry: Registry) -> None:
        registry.meaning = LookupError("gone")
        found = registry.lookups()
        held: list[weakref.ref[Body]] = []

        async def ask() -> None:
            body = Body()
            held.append(weakref.ref(body))
            with suppress(LookupError):
                await found.get("digits")

        await ask()
        await settle()
        assert held[0]() is None

    gc.disable()
    try:
        run(scenario)
    finally:
        gc.enable()
