"""How many bytes of requests to predict may be in memory at once: bodies as they come, and what is made of them."""

from __future__ import annotations

from fastapi import Request

from app.engine.errors import EngineFull
from app.errors import BodyTooLarge


class PendingBytes:
    """Counts what all requests hold. To be used from one event loop."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.pending = 0

    def check(self, more: int = 0) -> None:
        """Raises EngineFull if `more` on top of what is there would be too many."""
        if self.pending + more > self.most:
            raise EngineFull(
                f"Requests of {self.pending} bytes wait already, and {self.most} bytes are the most.",
                hint="Send it again in a moment.",
            )


class HeldBytes:
    """What one request holds: from the first byte that came until it is answered, or given up."""

    def __init__(self, pending: PendingBytes) -> None:
        self._pending = pending
        self._held = 0
        self._is_over = False

    def take(self, count: int) -> None:
        """So many more are in memory, or about to be; they count even if they are too many.

        Raises EngineFull; BodyTooLarge if they are too many for this server whoever else waits.
        """
        if self._is_over:  # of something that was given up with the request, and has not heard of it yet
            return
        self._held += count
        self._pending.pending += count
        if self._held > self._pending.most:
            raise BodyTooLarge(
                f"The request takes more than {self._pending.most} bytes of memory, and those are the most.",
                hint="Send fewer images at a time, or have the operator raise the limit.",
            )
        self._pending.check()

    def leave(self) -> None:
        """All of them are given back."""
        self._is_over = True
        self._pending.pending -= self._held


def held_by(request: Request) -> HeldBytes:
    """What the request holds, for whoever makes more of its body than came in."""
    held: HeldBytes = request.state.held_bytes
    return held
