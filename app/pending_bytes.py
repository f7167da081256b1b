"""How many bytes of requests' bodies may be in memory at once."""

from __future__ import annotations

from app.inference.errors import EngineFull


class PendingBytes:
    """Counts what came in, from its first byte until its request is answered. To be used from one event loop."""

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

    def take(self, count: int) -> None:
        """They came in. Raises EngineFull if they are too many; they count nevertheless."""
        self.pending += count
        self.check()

    def leave(self, count: int) -> None:
        """Their request was answered, or given up."""
        self.pending -= count
