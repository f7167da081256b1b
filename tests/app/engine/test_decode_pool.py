"""The decode pool: the urgent first, as many at once as it has threads, and nothing that was given up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from app.engine.decode_pool import DecodePool, Urgency
from app.engine.turn_taking import TurnTakingPool
from tests.waiting import PATIENCE_S, wait_until

Pool = TypeVar("Pool", bound=DecodePool)


def with_pool(work: Callable[[DecodePool], Coroutine[Any, Any, None]], *, threads: int = 1) -> None:
    run_with(lambda: DecodePool(threads), work)


def with_turns(work: Callable[[TurnTakingPool], Coroutine[Any, Any, None]]) -> None:
    run_with(TurnTakingPool, work)


def run_with(make_pool: Callable[[], Pool], work: Callable[[Pool], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        pool = make_pool()
        try:
            await work(pool)
        finally:
            pool.close()

    asyncio.run(run())


@asynccontextmanager
async def busy(pool: DecodePool) -> AsyncIterator[None]:
    """Its one thread is, until this ends."""
    began, release = threading.Event(), threading.Event()

    def hold() -> None:
        began.set()
        assert release.wait(PATIENCE_S)

    held = asyncio.create_task(pool.run("finish", hold))
    await asyncio.to_thread(began.wait, PATIENCE_S)
    try:
        yield
    finally:
        release.set()
        await held


async def asked(pool: DecodePool, calls: list[Coroutine[Any, Any, Any]]) -> list[asyncio.Task[Any]]:
    """Tasks of them, all of which wait."""
    tasks = [asyncio.create_task(call) for call in calls]
    await asyncio.to_thread(wait_until, lambda: pool.waiting == len(calls))
    return tasks


def test_urgent_calls_go_first_and_equals_in_their_order() -> None:
    ran: list[str] = []
    urgencies: list[Urgency] = ["bulk", "interactive", "finish", "bulk", "interactive", "finish"]

    async def work(pool: DecodePool) -> None:
        async with busy(pool):
            calls = [pool.run(urgency, ran.append, f"{urgency} {at}") for at, urgency in enumerate(urgencies)]
            tasks = await asked(pool, calls)
        await asyncio.gather(*tasks)

    with_pool(work)
    assert ran == ["finish 2", "finish 5", "interactive 1", "interactive 4", "bulk 0", "bulk 3"]


def test_network_goes_before_decoding_that_is_not_more_urgent() -> None:
    ran: list[str] = []
    urgencies: list[Urgency] = ["bulk", "bulk network", "interactive", "network", "finish"]

    async def work(pool: DecodePool) -> None:
        async with busy(pool):
            tasks = await asked(pool, [pool.run(urgency, ran.append, urgency) for urgency in urgencies])
        await asyncio.gather(*tasks)

    with_pool(work)
    assert ran == urgencies[::-1]


def test_pool_is_busy_until_the_event_loop_knows_the_result() -> None:
    async def work(pool: TurnTakingPool) -> None:
        told: list[bool] = []
        pool.before_delivery = lambda: told.append(pool.is_busy("bulk"))
        async with busy(pool):
            given_up, going_on = await asked(pool, [pool.run("bulk", str), pool.run("bulk", str)])
            given_up.cancel()
            assert pool.is_busy("finish")  # what holds it
        await going_on
        assert not pool.is_busy("bulk")
        assert told == [True, True, False]  # also of the one that was given up

    with_turns(work)


def test_quick_results_are_results_per_wakeup_and_none_is_left_untold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.engine.turn_taking._QUICK_S", 60)
    monkeypatch.setattr("app.engine.turn_taking._LONGEST_DELAY_S", 60)
    gate = threading.Semaphore(0)

    async def work(pool: TurnTakingPool) -> None:
        async with busy(pool):
            tasks = await asked(pool, [pool.run("bulk", gate.acquire, may_be_delayed=True) for _ in range(5)])
        pool.results_per_wakeup = 3
        gate.release(2)
        await asyncio.to_thread(wait_until, lambda: pool.waiting == 2)  # the thread is at the third
        await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)
        gate.release(1)
        assert await asyncio.gather(*tasks[:3]) == [True] * 3
        gate.release(2)  # fewer than three, and no more to come
        assert await asyncio.gather(*tasks) == [True] * 5

    with_turns(work)


def test_slow_result_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.engine.turn_taking._QUICK_S", 0)
    release = threading.Event()

    async def work(pool: TurnTakingPool) -> None:
        pool.results_per_wakeup = 4
        async with busy(pool):
            first, second = await asked(
                pool, [pool.run("bulk", *call, may_be_delayed=True) for call in ((str, 1), (release.wait, 30))]
            )
        assert await first == "1"  # while the second goes on
        release.set()
        assert await second is True

    with_turns(work)


@pytest.mark.parametrize("how", ["raised", "returned", "alone"])
def test_error_and_result_without_company_are_told_at_once(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr("app.engine.turn_taking._QUICK_S", 60)
    monkeypatch.setattr("app.engine.turn_taking._LONGEST_DELAY_S", 60)
    release = threading.Event()

    def first() -> Any:
        error = ValueError("no picture")
        if how == "raised":
            raise error
        return error if how == "returned" else 1

    async def work(pool: TurnTakingPool) -> None:
        pool.results_per_wakeup = 4
        async with busy(pool):
            calls = [pool.run("bulk", first, may_be_delayed=how != "alone"), pool.run("bulk", release.wait, 30)]
            told, second = await asked(pool, calls)
        outcomes = await asyncio.gather(told, return_exceptions=True)  # while the second goes on
        assert str(outcomes[0]) == ("1" if how == "alone" else "no picture")
        release.set()
        assert await second is True

    with_turns(work)


def test_result_that_waits_for_company_is_told_when_the_pool_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.engine.turn_taking._QUICK_S", 60)
    monkeypatch.setattr("app.engine.turn_taking._LONGEST_DELAY_S", 60)
    begin, began, release = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        began.set()
        assert release.wait(PATIENCE_S)

    async def work(pool: TurnTakingPool) -> None:
        async with busy(pool):
            calls: list[Coroutine[Any, Any, Any]] = [
                pool.run("bulk", begin.wait, may_be_delayed=True),
                pool.run("bulk", hold),
                pool.run("bulk", list),
            ]
            first, *others = await asked(pool, calls)
        pool.results_per_wakeup = 4
        begin.set()
        await asyncio.to_thread(began.wait, PATIENCE_S)
        assert not first.done()
        pool.close()
        assert await first is True
        release.set()
        outcomes = await asyncio.gather(*others, return_exceptions=True)
        assert outcomes[0] is None
        assert isinstance(outcomes[1], asyncio.CancelledError)

    with_turns(work)


def test_all_threads_work_at_once() -> None:
    meeting = threading.Barrier(3, timeout=PATIENCE_S)

    async def work(pool: DecodePool) -> None:
        met = await asyncio.gather(*(pool.run("bulk", meeting.wait) for _ in range(6)))
        assert sorted(met) == [0, 0, 1, 1, 2, 2]

    with_pool(work, threads=3)


def test_cancelled_call_never_runs() -> None:
    ran: list[int] = []

    async def work(pool: DecodePool) -> None:
        async with busy(pool):
            tasks = await asked(pool, [pool.run("interactive", ran.append, 1), pool.run("bulk", ran.append, 2)])
            tasks[0].cancel()
            with pytest.raises(asyncio.CancelledError):
                await tasks[0]
        await tasks[1]
        assert pool.waiting == 0

    with_pool(work)
    assert ran == [2]


def test_error_is_raised_where_the_call_is_awaited_and_the_thread_goes_on() -> None:
    def fail() -> None:
        msg = "no picture"
        raise ValueError(msg)

    async def work(pool: DecodePool) -> None:
        with pytest.raises(ValueError, match="no picture"):
            await pool.run("interactive", fail)
        assert await pool.run("interactive", str.upper, "fine") == "FINE"

    with_pool(work)


def test_closed_pool_gives_up_what_waits_and_takes_no_more() -> None:
    ran: list[int] = []

    async def work(pool: DecodePool) -> None:
        async with busy(pool):
            (task,) = await asked(pool, [pool.run("bulk", ran.append, 1)])
            pool.close()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(RuntimeError, match="shutdown"):
                await pool.run("bulk", ran.append, 2)

    with_pool(work)
    assert ran == []
