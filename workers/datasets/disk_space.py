"""A full disk, told as such."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from workers.errors import NO_SPACE, DiskFull


@contextlib.contextmanager
def disk_full_errors() -> Iterator[None]:
    """Turns the operating system's ways to say that there is no space left into DiskFull."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise DiskFull(
            f"There is no space left to write to: {os.strerror(error.errno)}.",
            hint="Delete data sets, jobs or model versions that are no longer needed.",
        ) from error
