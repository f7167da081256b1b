"""Memory that goes back to the system: allocators keep what was freed for themselves."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import sys
from typing import Final

LARGE_PIXELS: Final = 8_000_000  # 24 MB, and as much again while it is decoded and resized
_DELAY_S: Final = 1.0  # images come in crowds


def return_memory() -> None:
    """Takes some milliseconds, in which other threads may wait for memory. Not for the event loop."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # a C library that is not glibc
            ctypes.CDLL("libc.so.6").malloc_trim(0)


class LargePictures:
    """Has memory returned soon after large images were there.

    Pillow's and torch's blocks of an image stay with the thread that decoded it: half a gigabyte each, at worst.
    """

    def __init__(self) -> None:
        self._were_there = False
        self._timer: asyncio.TimerHandle | None = None

    def note(self, pixels: int) -> None:
        """An image of that many was decoded. From any thread."""
        if pixels >= LARGE_PIXELS:
            self._were_there = True

    def request_ended(self) -> None:
        """From the event loop: whatever images it had are given up now."""
        if self._were_there and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_DELAY_S, self._return)

    def close(self) -> None:
        """Nothing is returned any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _return(self) -> None:
        self._timer, self._were_there = None, False
        asyncio.get_running_loop().run_in_executor(None, return_memory)
