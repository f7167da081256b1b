"""Returns freed memory to the system, which allocators would keep."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import sys
from typing import Final

LARGE_PIXELS: Final = 8_000_000  # 24 MB, and as much again while it is decoded and resized
_DELAY_S: Final = 1.0  # images come in groups


def return_memory() -> None:
    """Returns freed memory. It takes some milliseconds, in which other threads may wait for memory."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # a C library that is not glibc
            ctypes.CDLL("libc.so.6").malloc_trim(0)


class LargePictures:
    """Returns memory soon after large images were processed.

    Pillow's and torch's memory for an image stays with the thread that decoded it: at worst half a gigabyte each.
    """

    def __init__(self) -> None:
        self._were_there = False
        self._timer: asyncio.TimerHandle | None = None

    def note(self, pixels: int) -> None:
        """Notes a decoded image with that many pixels. Called from any thread."""
        if pixels >= LARGE_PIXELS:
            self._were_there = True

    def request_ended(self) -> None:
        """Schedules the return of memory, when a request has released its images. Called from the event loop."""
        if self._were_there and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_DELAY_S, self._return)

    def close(self) -> None:
        """Stops returning memory."""
        if self._timer is not None:
            self._timer.cancel()

    def _return(self) -> None:
        self._timer, self._were_there = None, False
        asyncio.get_running_loop().run_in_executor(None, return_memory)
