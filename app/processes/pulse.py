"""A child's pulse: one byte through a pipe every second while it is well. A living child without a pulse hangs.

The parent counts checks without a byte, not seconds. So a parent that was starved itself, or a machine that was paused,
does not count against the child.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_EVERY_S: Final = 1.0
_MANY = 4096  # bytes: more than an hour of beats


class Pulse:
    """The parent's end of the pipe, and the child's end until the child has started."""

    def __init__(self) -> None:
        self._reading, self.beating = os.pipe()
        os.set_blocking(self._reading, False)
        self._is_handed_over = self._is_closed = False
        self._has_begun = False

    async def begins(self) -> None:
        """Waits for the first byte. Raises EOFError if the child ends instead."""
        loop = asyncio.get_running_loop()
        is_readable = asyncio.Event()
        loop.add_reader(self._reading, is_readable.set)
        try:
            await is_readable.wait()
        finally:
            loop.remove_reader(self._reading)
        if not os.read(self._reading, 1):
            raise EOFError
        self._has_begun = True

    async def stops(self, *, first_within: int, missed: int) -> int:
        """Waits for that many checks without a beat, one per second, and returns their number."""
        found_nothing = 0
        while found_nothing < (missed if self._has_begun else first_within):
            await asyncio.sleep(_EVERY_S)
            found_nothing += 1
            with suppress(BlockingIOError):
                if os.read(self._reading, _MANY):
                    found_nothing, self._has_begun = 0, True
        return found_nothing

    def hand_over(self) -> None:
        """Closes the child's end in this process after the child has started, so the pipe ends with the child."""
        if not self._is_handed_over:
            self._is_handed_over = True
            os.close(self.beating)

    def close(self) -> None:
        """Closes both ends."""
        self.hand_over()
        if not self._is_closed:
            self._is_closed = True
            os.close(self._reading)


async def beat(descriptor: int, is_well: Callable[[], bool]) -> None:
    """The child's side: sends beats while `is_well`, until it is cancelled."""
    os.set_blocking(descriptor, False)
    while True:
        if is_well():
            with suppress(BlockingIOError, BrokenPipeError):  # the parent has not read for long, or has ended
                os.write(descriptor, b"!")
        await asyncio.sleep(_EVERY_S)
