"""The meaning of references, cached for a moment and refreshed in the background before it expires.

A lookup needs a thread or another process. As long as requests come, it happens in the background and no request waits
for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

_MOST_KEPT = 10_000
_RENEWED_AT = 0.7  # fraction of the lifetime of a lookup

Key = TypeVar("Key", bound=Hashable)
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class _Kept(Generic[Found]):
    found: Found
    began_at: float  # the result was true at this time


@dataclass(frozen=True, slots=True)
class _UnderWay(Generic[Found]):
    task: asyncio.Task[Found]
    began_at: float


class Lookups(Generic[Key, Found]):
    """A cache of lookups. Used from one event loop."""

    def __init__(
        self,
        look_up: Callable[[Key], Coroutine[Any, Any, Found]],
        *,
        holds_s: float,
        on_found: Callable[[Key, Found], None] = lambda _key, _found: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """holds_s: lifetime of a lookup from its start; 0 disables the cache.

        on_found: called with every result before the waiting callers get it, unless it was forgotten in the meantime.
        """
        self._look_up = look_up
        self._holds_s = holds_s
        self._on_found = on_found
        self._now = now
        self._kept: dict[Key, _Kept[Found]] = {}
        self._under_way: dict[Key, _UnderWay[Found]] = {}

    def known(self, key: Key) -> Found | None:
        """The last result, of any age."""
        kept = self._kept.get(key)
        return kept.found if kept else None

    def fresh(self, key: Key) -> Found | None:
        """The current result without waiting, or None. Starts a background lookup if it expires soon."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        age_s = self._now() - kept.began_at
        if age_s >= self._holds_s:
            return None
        if age_s >= _RENEWED_AT * self._holds_s and key not in self._under_way:
            self._begin(key)
        return kept.found

    async def get(self, key: Key) -> Found:
        """The current result, from one lookup for all waiting callers. Raises what the lookup raises."""
        found = self.fresh(key)
        if found is not None:
            return found
        under_way = self._under_way.get(key)
        if under_way is None or self._now() - under_way.began_at >= self._holds_s:
            under_way = self._begin(key)
        task = under_way.task
        del under_way
        try:
            return await asyncio.shield(task)
        finally:
            del task  # an error's traceback holds this frame: without `del` it holds the task, and the task the error

    def forget(self, key: Key | None = None) -> None:
        """Forgets one result or all, also those of running lookups, which may be out of date."""
        if key is None:
            self._kept.clear()
            self._under_way.clear()
        else:
            self._kept.pop(key, None)
            self._under_way.pop(key, None)

    def close(self) -> None:
        """Cancels running lookups."""
        for under_way in self._under_way.values():
            under_way.task.cancel()
        self.forget()

    def _begin(self, key: Key) -> _UnderWay[Found]:
        under_way = _UnderWay(asyncio.create_task(self._look_up(key)), self._now())
        self._under_way[key] = under_way
        under_way.task.add_done_callback(lambda done: self._end(key, under_way, done))
        return under_way

    def _end(self, key: Key, under_way: _UnderWay[Found], done: asyncio.Task[Found]) -> None:
        has_failed = done.cancelled() or done.exception() is not None  # the waiting callers get the error
        if self._under_way.get(key) is not under_way:  # forgotten, or replaced by a newer lookup
            return
        del self._under_way[key]
        if has_failed:  # the next caller looks it up again
            self._kept.pop(key, None)
            return
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[key] = _Kept(done.result(), under_way.began_at)
        self._on_found(key, done.result())
