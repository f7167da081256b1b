"""Turns the errors of a full disk into DiskFull."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from workers.errors import NO_SPACE, DiskFull


@contextlib.contextmanager
def disk_full_errors() -> Iterator[None]:
    """Raises DiskFull instead of the operating system's errors for a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise DiskFull(
            f"The disk is full: {os.strerror(error.errno)}.",
            hint="Delete datasets, jobs or model versions that are no longer needed.",
        ) from error
