"""A child process with its own process group. Its output lines are passed on, and it dies with its parent."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from workers.supervision.child_process import die_with_parent

_LONGEST_LINE_BYTES = 64 * 1024
_OUTPUT_AFTER_EXIT_S = 1.0  # for a grandchild that keeps the pipe open


class Child:
    """One running child process."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, relay: asyncio.Task[None]) -> None:
        self.name = name
        self.pid = process.pid
        self._process = process
        self._relay = relay

    async def ended(self) -> int:
        """Waits for its end and its last lines. Returns the exit code, or minus the signal."""
        code = await self._process.wait()
        await asyncio.wait([self._relay], timeout=_OUTPUT_AFTER_EXIT_S)
        return code

    async def stop(self, *, grace_s: float) -> int:
        """Asks it to end, and kills its process group after `grace_s`. Returns its exit code."""
        if self._process.returncode is None:
            self._process.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._process.wait()
        self.kill()
        return await self.ended()

    def kill(self) -> None:
        """Kills what is left of its process group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


async def start_child(
    name: str,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    output: Callable[[str, str], None],
    standard_input: bytes = b"",
    directory: Path | None = None,
    keep_open: Sequence[int] = (),
) -> Child:
    """Starts `argv`; `output` gets `name` and every line it writes. The child inherits the descriptors in `keep_open`.

    Call it in the main thread: the kernel kills the child when the thread that started it ends. Raises OSError.
    """
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=dict(env),
        cwd=directory,
        process_group=0,  # Ctrl-C in a terminal reaches only the parent, which then stops all children in order
        preexec_fn=die_with_parent(),
        pass_fds=tuple(keep_open),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(standard_input)
    process.stdin.close()
    return Child(name, process, asyncio.create_task(_relay(process.stdout, name, output)))


async def _relay(stream: asyncio.StreamReader, name: str, output: Callable[[str, str], None]) -> None:
    pending = b""
    while chunk := await stream.read(_LONGEST_LINE_BYTES):
        *lines, pending = (pending + chunk).split(b"\n")
        if len(pending) > _LONGEST_LINE_BYTES:
            lines, pending = [*lines, pending], b""
        for line in lines:
            output(name, line.decode(errors="replace").rstrip("\r"))
    if pending:
        output(name, pending.decode(errors="replace"))
