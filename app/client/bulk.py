"""Sends many images to a server as fast as it accepts them, and survives its failures.

A few threads each send one request at a time on a kept connection. Images are sent in groups, because a request costs
more than a small image. The threads only wait for a disk or a socket, so they saturate the server as well as an event
loop does, and they use the synchronous client with its headers, transport and connections.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pydantic import BaseModel

from app.client.asking import Answered, GroupAsker
from app.client.patience import Patience, Waiting
from app.client.questions import Entry, Priority, Question, Value
from app.client.transport import Call, Transport
from app.schemas.system import Limits

MOST_IN_FLIGHT = 64


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The load on the server, and how long the client waits for it. `docs/lab/bulk-client.md` explains the defaults.

    Raises ValueError.
    """

    in_flight: int = 8  # requests at once, 1 to 64
    images_per_request: int = 8  # at most; as many as fit in 16 MiB
    patience_s: float = 120.0  # seconds without any success before the client gives up

    def __post_init__(self) -> None:
        if not 1 <= self.in_flight <= MOST_IN_FLIGHT:
            raise ValueError(f"in_flight is {self.in_flight}: it can be 1 to {MOST_IN_FLIGHT}")
        if self.images_per_request < 1:
            raise ValueError(f"images_per_request is {self.images_per_request}: at least 1")
        if not self.patience_s >= 0:
            raise ValueError(f"patience_s is {self.patience_s}: at least 0")


class _Limited(BaseModel):
    """The part of `/v1/system` that is read here."""

    limits: Limits


def ask_many(
    transport: Transport,
    question: Question[Entry],
    paths: Iterable[Path],
    options: Mapping[str, Value],
    *,
    pace: Pace,
    priority: Priority,
    on_wait: Waiting | None,
) -> Iterator[Answered[Entry]]:
    """The answers as they arrive; each path is sent once. See `Predictions.ask_many`."""
    limits = transport.answer(Call(method="GET", path="/v1/system"), _Limited).limits
    patience = Patience(pace.patience_s, on_wait=on_wait)
    asker = GroupAsker(transport, question, limits, patience, options, priority=priority)
    groups = _grouped(paths, min(pace.images_per_request, limits.max_images_per_request))
    for group in groups:
        answered = asker.ask(group)
        yield answered
        if answered.model:  # all further requests use this version
            asker.pin(answered.model)
            break
    yield from _ask_in_threads(asker, groups, patience, pace.in_flight)


def _ask_in_threads(
    asker: GroupAsker[Entry], groups: Iterator[list[Path]], patience: Patience, in_flight: int
) -> Iterator[Answered[Entry]]:
    todo: queue.SimpleQueue[list[Path] | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[Answered[Entry] | BaseException] = queue.SimpleQueue()
    threads = 0
    waiting = 0
    try:
        for group in groups:
            todo.put(group)
            waiting += 1
            if threads < in_flight:
                # Daemon threads: a program that ends early does not wait for answers.
                threading.Thread(target=_work, args=(asker, todo, done), name="bulk", daemon=True).start()
                threads += 1
            while waiting >= 2 * in_flight or (waiting and not done.empty()):  # one group is ready for each thread
                yield _result(done)
                waiting -= 1
        while waiting:
            yield _result(done)
            waiting -= 1
    finally:
        patience.stop()
        for _ in range(threads):
            todo.put(None)


def _work(
    asker: GroupAsker[Entry],
    todo: queue.SimpleQueue[list[Path] | None],
    done: queue.SimpleQueue[Answered[Entry] | BaseException],
) -> None:
    while (group := todo.get()) is not None:
        try:
            done.put(asker.ask(group))
        except BaseException as error:
            done.put(error)


def _result(done: queue.SimpleQueue[Answered[Entry] | BaseException]) -> Answered[Entry]:
    result = done.get()
    if isinstance(result, BaseException):
        raise result
    return result


def _grouped(paths: Iterable[Path], size: int) -> Iterator[list[Path]]:
    iterator = iter(paths)
    while group := list(islice(iterator, size)):
        yield group
