"""Bounds the pending images, and estimates when a refused client may come back."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from app.engine.errors import EngineFull
from app.engine.lane import Priority
from app.settings import most_bulk_images
from models.errors import TooManyTiles

_LONGEST_RETRY_S = 60


class Admission:
    """Counts pending views: images, and tiles of large images, that are accepted and not yet answered."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.pending = 0
        self._view_s = 0.05  # seconds per view while others wait; a guess until some were measured
        self._working = 0
        self._busy_since = 0.0

    def check(self, priority: Priority, timeout_s: float) -> None:
        """Raises EngineFull if not even one view would be admitted. Called before a body is read."""
        self._check(1, priority, timeout_s)

    def admit(self, views: int, priority: Priority, timeout_s: float) -> None:
        """Admits the views. Raises EngineFull, TooManyTiles."""
        if views > self._places(priority):
            raise TooManyTiles(
                f"The request has {views} images and tiles, and the limit is {self._places(priority)}.",
                hint="Send fewer images at a time, or ask for larger tiles.",
            )
        self._check(views, priority, timeout_s)
        self.pending += views

    @contextmanager
    def working(self) -> Iterator[None]:
        """The time in which a request is decoded and predicted, without the load of its model."""
        if self._working == 0:
            self._busy_since = time.monotonic()
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1

    def leave(self, views: int) -> None:
        """Removes views that were answered or given up."""
        self.pending -= views

    def note(self, views: int) -> None:
        """Notes that the device has just processed that many views."""
        now = time.monotonic()
        elapsed_s, self._busy_since = now - self._busy_since, now
        weight = min(1.0, 0.1 * views)
        self._view_s += weight * (elapsed_s / views - self._view_s)

    def _places(self, priority: Priority) -> int:
        return self.most if priority == "interactive" else most_bulk_images(self.most)

    def _check(self, views: int, priority: Priority, timeout_s: float) -> None:
        waiting_s = self.pending * self._view_s
        retry_after_s = min(_LONGEST_RETRY_S, max(1, math.ceil(waiting_s)))
        hint = f"Send them again in {retry_after_s} s."
        if self.pending + views > self._places(priority):
            message = f"{self.pending} images are pending, and the limit is {self._places(priority)}."
            raise EngineFull(message, hint=hint, retry_after_s=retry_after_s)
        if self.pending and waiting_s > timeout_s:
            message = f"{self.pending} images are pending: these would not be ready within {timeout_s:g} s."
            raise EngineFull(message, hint=hint, retry_after_s=retry_after_s)
