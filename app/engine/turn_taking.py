"""Decoding and the network take turns in one thread, where a server has a single CPU core for both.

A second thread would only interrupt the network, which then takes longer. With one thread, the core is never idle while
an image is being decoded, so two rules of `Lane` and `DecodePool` change:

- A batch waits while the thread decodes something as urgent, because that image may join the batch. It waits at most as
  long as the model's last batch took. Otherwise the network would run for one image although more are about to come.
- Waking the event loop takes a part of the core. While the lane can do nothing with a single decoded image, the pool
  delivers the results of several quick calls together.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from app.engine.decode_pool import URGENCIES, Call, DecodePool, Result, Urgency
from app.engine.lane import Lane, Priority, QueueKey, ViewResult
from app.engine.loaded_models import LoadedModel
from app.engine.observer import Observer
from models.predictor import Selection

_QUICK_S = 0.01  # results of calls that take longer are delivered at once
_LONGEST_DELAY_S = 0.03


class TurnTakingPool(DecodePool):
    """A decode pool of one thread, which also runs the network."""

    def __init__(self) -> None:
        super().__init__(1)
        self._undelivered = dict.fromkeys(URGENCIES, 0)
        self.results_per_wakeup = 1  # more results than this never wait for each other
        self.before_delivery: Callable[[], None] = lambda: None  # called for each result, before its caller resumes

    def is_busy(self, urgency: Urgency) -> bool:
        """Whether the result of a call that is at least as urgent has not been delivered yet."""
        return any(self._undelivered[at_least] for at_least in URGENCIES[: URGENCIES.index(urgency) + 1])

    def submit(self, urgency: Urgency, work: Callable[[], Result]) -> asyncio.Future[Result]:
        """The future result of `work`."""
        return self._enqueue(urgency, work, ()).done

    def _enqueue(
        self, urgency: Urgency, work: Callable[..., Any], args: tuple[object, ...], *, may_be_delayed: bool = False
    ) -> Call:
        self._undelivered[urgency] += 1
        return super()._enqueue(urgency, work, args, may_be_delayed=may_be_delayed)

    def _is_delayed(self, call: Call) -> bool:
        """Whether this result may be delivered together with that of the next call, which is already queued."""
        if not call.may_be_delayed or call.error is not None or isinstance(call.result, Exception):
            return False
        try:
            oldest = self._ended[0]
        except IndexError:  # the event loop has just read it
            return False
        return (
            len(self._ended) < self.results_per_wakeup
            and bool(self._queues[call.urgency])
            and call.ended_at - call.began_at < _QUICK_S
            and call.ended_at - oldest.ended_at < _LONGEST_DELAY_S
        )

    def _deliver(self, call: Call) -> None:
        self._undelivered[call.urgency] -= 1
        super()._deliver(call)
        self.before_delivery()


class TurnTakingLane(Lane):
    """A lane whose network runs in the thread of a decode pool."""

    def __init__(
        self, pool: TurnTakingPool, *, observers: Sequence[Observer] = (), after_batch: Callable[[int], None]
    ) -> None:
        super().__init__(observers=observers, after_batch=after_batch)
        self._pool = pool
        self._will_start = False
        self._is_put_off = False  # a result was delivered since `_will_start`: its views are about to be submitted
        pool.before_delivery = self._put_off

    def submit(
        self, model: LoadedModel, view: Tensor, selection: Selection[Any], priority: Priority
    ) -> asyncio.Future[ViewResult]:
        """See Lane."""
        self._pool.results_per_wakeup = model.batch_size(view.shape)
        return super().submit(model, view, selection, priority)

    def _start_soon(self) -> None:
        """Starts a batch once all images that are decoded by now have submitted their views.

        The event loop has already scheduled the callers of these images, so two rounds of the loop are enough.
        """
        if self._will_start or not self._queues:
            return
        self._will_start, self._is_put_off = True, False
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._start_unless_put_off)

    def _put_off(self) -> None:
        """Called for each result of the shared thread, just before its caller resumes."""
        self._is_put_off = True
        self._start_soon()

    def _start_unless_put_off(self) -> None:
        self._will_start = False
        if self._is_put_off:
            self._start_soon()
        else:
            self._start()

    def _is_growing(self, key: QueueKey) -> bool:
        """Whether the thread is busy with something as urgent, whose views may join the batch of this queue."""
        queue = self._queues[key]
        if len(queue) >= self._largest_batch(key) or not self._pool.is_busy(key[0]):
            return False
        first = queue[0]
        return time.perf_counter() - max(self._idle_since, first.since) < first.model.batch_s

    def _run_in_thread(self, priority: Priority, work: Callable[[], Result]) -> asyncio.Future[Result]:
        return self._pool.submit("network" if priority == "interactive" else "bulk network", work)
