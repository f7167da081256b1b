"""Work on many files at once, with results in the files' order and a bound on what waits."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_MAX_THREADS = 8

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_order(
    work: Callable[[_Item], _Result], items: Iterable[_Item], *, threads: int | None = None
) -> Iterator[_Result]:
    """`work` of each of `items`, in their order. Decoders release the interpreter's lock, so threads use all cores.

    threads: null takes one a core, at most 8.
    """
    count = threads or min(_MAX_THREADS, os.cpu_count() or 1)
    pending: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(count, thread_name_prefix="dataset") as pool:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > 4 * count:  # bounds what waits, whatever the number of items
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
