"""Who may wait: bounds, and when to come back, by what the engine gets done lately."""

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
    """Counts the views that were accepted and not yet answered: images, and tiles of large ones."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.pending = 0
        self._view_s = 0.05  # between two views that leave while others wait; a guess until there were any
        self._working = 0
        self._busy_since = 0.0

    def check(self, priority: Priority, timeout_s: float) -> None:
        """Raises EngineFull if not even one view may come: to be asked before a body is read."""
        self._check(1, priority, timeout_s)

    def admit(self, views: int, priority: Priority, timeout_s: float) -> None:
        """Counts them in. Raises EngineFull, TooManyTiles."""
        if views > self._places(priority):
            raise TooManyTiles(
                f"The request has {views} images and tiles, and {self._places(priority)} are the most that may wait.",
                hint="Send fewer images at a time, or ask for larger tiles.",
            )
        self._check(views, priority, timeout_s)
        self.pending += views

    @contextmanager
    def working(self) -> Iterator[None]:
        """While a request is decoded and predicted: loading its model tells nothing of how fast images go."""
        if self._working == 0:
            self._busy_since = time.monotonic()
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1

    def leave(self, views: int) -> None:
        """They were answered, or given up."""
        self.pending -= views

    def note(self, views: int) -> None:
        """So many went through the device just now."""
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
            message = f"{self.pending} images wait already, and {self._places(priority)} are the most."
            raise EngineFull(message, hint=hint, retry_after_s=retry_after_s)
        if self.pending and waiting_s > timeout_s:
            message = f"{self.pending} images wait already: these would not be ready within {timeout_s:g} s."
            raise EngineFull(message, hint=hint, retry_after_s=retry_after_s)
