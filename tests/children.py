"""Child processes of tests. None of them outlives the test process, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeAlias

from tests.waiting import PATIENCE_S
from workers.supervision.child_process import die_with_parent

Process: TypeAlias = subprocess.Popen[Any]

PROJECT_DIR: Final = Path(__file__).resolve().parents[1]


def start(command: Sequence[str], **options: Any) -> Process:
    """Starts `command` in the project's directory and in a process group of its own.

    The kernel kills it when the test process ends, even by SIGKILL. Whoever calls this kills it with `end` before
    that; `child` does both.
    """
    usual = {"stdin": subprocess.DEVNULL, "cwd": PROJECT_DIR, "process_group": 0, "preexec_fn": die_with_parent()}
    return subprocess.Popen(command, **{**usual, **options})


def end(process: Process) -> None:
    """Kills what is left of the process and its group, and closes its pipes."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


@contextmanager
def child(command: Sequence[str], **options: Any) -> Iterator[Process]:
    """A process that runs until the end of the block at the latest."""
    process = start(command, **options)
    try:
        yield process
    finally:
        end(process)


def run(command: Sequence[str], *, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs `command` to its end; what it writes is in the result.

    Raises CalledProcessError if it fails, unless `check` is False.
    """
    with child(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as process:
        written, complained = process.communicate(timeout=PATIENCE_S)
    ended = subprocess.CompletedProcess(process.args, process.returncode, written, complained)
    if check and ended.returncode:
        raise subprocess.CalledProcessError(ended.returncode, command, ended.stdout, ended.stderr)
    return ended
