"""File descriptors: a server needs one a connection, and many systems start programs with few."""

from __future__ import annotations

import contextlib
import sys
from typing import Final

_ENOUGH: Final = 65_536


def raise_descriptor_limit() -> None:
    """The soft limit goes up to the hard one, or to what is enough; where the system has no limits, nothing happens."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
