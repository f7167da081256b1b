"""Runs a function on many items in threads, with the results in the order of the items."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_MAX_THREADS = 8

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def parallel_map(
    work: Callable[[_Item], _Result], items: Iterable[_Item], *, threads: int | None = None
) -> Iterator[_Result]:
    """Yields `work(item)` for each of `items`, in their order.

    Image decoders release the interpreter's lock, so threads use all cores.
    threads: None means one per core, at most 8.
    """
    count = threads or min(_MAX_THREADS, os.cpu_count() or 1)
    pending: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(count, thread_name_prefix="dataset") as pool:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > 4 * count:  # bounds the memory for results that are not consumed yet
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
