"""One `fovea up` per home. The kernel releases the lock when its last holder ends, in whatever way."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from app.processes.errors import HomeInUse, HomeNotWritable
from models.store.locks import lock_file

_LEFTOVERS_MAY_TAKE_S = 10.0


@dataclass(frozen=True, kw_only=True)
class HomeLock:
    """The lock on a home. Children inherit the descriptor, so it lasts until the last of them ends."""

    descriptor: int

    def release(self) -> None:
        """Releases the lock of this process."""
        os.close(self.descriptor)


def lock_home(home: Path, *, url: str) -> HomeLock:
    """Creates `home` if needed and takes its lock. url: shown to the next process that tries.

    Waits a little if the last holder was killed and its children are still ending.
    Raises HomeInUse, HomeNotWritable.
    """
    path = home / "up.lock"
    try:
        home.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise HomeNotWritable(
            f"Nothing can be written to {home.absolute()} ({error.strerror}).",
            hint="Choose another directory with --home (FOVEA_HOME).",
        ) from error
    try:
        _take(descriptor, path, deadline=time.monotonic() + _LEFTOVERS_MAY_TAKE_S)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "url": url}).encode(), 0)
    except BaseException:
        os.close(descriptor)
        raise
    return HomeLock(descriptor=descriptor)


def _take(descriptor: int, path: Path, *, deadline: float) -> None:
    while True:
        try:
            lock_file(descriptor, wait=False)
        except BlockingIOError as error:
            pid, url = _holder(path)
            if (pid and _is_alive(pid)) or time.monotonic() > deadline:
                raise HomeInUse(
                    f"`fovea up` (process {pid or 'unknown'}) already runs on {path.parent.absolute()}"
                    f"{f', at {url}' if url else ''}.",
                    hint="Use it, stop it first, or choose another --home (FOVEA_HOME).",
                ) from error
            time.sleep(0.05)
        else:
            return


def _holder(path: Path) -> tuple[int | None, str]:
    try:
        said = json.loads(path.read_bytes())
        return int(said["pid"]), str(said["url"])
    except (OSError, ValueError, KeyError, TypeError):  # not written yet
        return None, ""


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
