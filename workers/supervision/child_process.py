"""What every child process of Fovea shares: it runs the same code as its parent, and it dies with its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

_CODE_DIRECTORY = Path(__file__).resolve().parents[2]
_PR_SET_PDEATHSIG = 1  # prctl(2)


def code_environment() -> dict[str, str]:
    """This process's environment, changed so that `python -m app...` finds the code that runs now.

    The code comes before whatever else PYTHONPATH names, and a directory `models` or `app` in the child's current
    directory is not looked at.
    """
    search_path = os.pathsep.join(filter(None, [str(_CODE_DIRECTORY), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": search_path, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}


def die_with_parent() -> Callable[[], None] | None:
    """What a child runs between fork and exec, so that the kernel kills it when its parent ends, even by `kill -9`.

    The kernel watches the thread that starts the child: start it from a thread that lives as long as the process.
    None where the system has no such thing (only Linux has): there a killed parent leaves its children behind.
    """
    if sys.platform != "linux":
        return None
    libc = _libc()  # loaded here: little is safe between fork and exec
    parent = os.getpid()

    def in_the_child() -> None:
        if not _is_killed_with(parent, libc):
            os._exit(1)

    return in_the_child


def die_with(parent: int) -> bool:
    """Asks the kernel to kill this process when `parent`, which started it, ends. False if it has ended already."""
    if sys.platform != "linux":
        return os.getppid() == parent
    return _is_killed_with(parent, _libc())


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _is_killed_with(parent: int, libc: ctypes.CDLL) -> bool:
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent  # else it ended before the kernel was asked
