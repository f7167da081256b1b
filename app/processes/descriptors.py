"""The limit of file descriptors: a server needs one per connection, and many systems start programs with few."""

from __future__ import annotations

import contextlib
import sys
from typing import Final

_ENOUGH: Final = 65_536


def raise_descriptor_limit() -> None:
    """Raises the soft limit towards the hard limit, as far as needed. Does nothing on systems without limits."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
