"""Functions for all child processes of Fovea: a child runs the same code as its parent, and dies with its parent."""

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
    """Returns the environment for a child, in which `python -m app...` finds the code that runs now.

    The code comes before all other entries of PYTHONPATH. A directory `models` or `app` in the current directory of the
    child is ignored. PyTorch's idle threads sleep unless the environment says otherwise: while they spin, a step of a
    small network costs ten times as much CPU on a busy machine.
    """
    search_path = os.pathsep.join(filter(None, [str(_CODE_DIRECTORY), os.environ.get("PYTHONPATH")]))
    ours = {"PYTHONPATH": search_path, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
    return {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, **ours}


def die_with_parent() -> Callable[[], None] | None:
    """Returns a function to call between fork and exec: the kernel then kills the child when its parent ends.

    This works even for `kill -9`. The kernel watches the thread that starts the child, so start it from a thread that
    lives as long as the process. Returns None on systems other than Linux, where children survive a killed parent.
    """
    if sys.platform != "linux":
        return None
    libc = _libc()  # loaded before the fork: few operations are safe between fork and exec
    parent = os.getpid()

    def in_the_child() -> None:
        if not _is_killed_with(parent, libc):
            os._exit(1)

    return in_the_child


def die_with(parent: int) -> bool:
    """Asks the kernel to kill this process when `parent`, which started it, ends. Returns False if it has ended."""
    if sys.platform != "linux":
        return os.getppid() == parent
    return _is_killed_with(parent, _libc())


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _is_killed_with(parent: int, libc: ctypes.CDLL) -> bool:
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent  # False: the parent ended before the call of prctl
