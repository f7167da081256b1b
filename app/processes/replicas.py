"""`fovea serve --processes N`: N replicas share one port, and each is restarted when it dies.

Every replica has its own socket with SO_REUSEPORT, and the kernel spreads new connections over them. The parent
holds a bound socket that never listens, so that no other program takes the port while a replica restarts.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from app.processes.address import base_url, bound_socket
from app.processes.cores import usable_cores
from app.processes.errors import ChildDied, HomeNotWritable
from models.store.temporary_directories import remove_abandoned_directories, temporary_directory
from workers.supervision.child_process import die_with_parent

log = logging.getLogger(__name__)

# in the environment of each replica
REPLICA: Final = "FOVEA_REPLICA"  # its number
REPLICAS_DIRECTORY: Final = "FOVEA_REPLICAS_DIRECTORY"  # where it finds the files of the others

_SETTLED_S = 30.0  # a replica that lived that long started well
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 15.0
_GRACE_S = 10.0


class Replicas:
    """Starts the replicas of one port and keeps them running."""

    def __init__(
        self,
        program: Sequence[str],
        *,
        count: int,
        env: Mapping[str, str],
        on_death: Callable[[int], None] = lambda _: None,
    ) -> None:
        """on_death: called with the process id of every replica that ended."""
        self._program = program
        self._count = count
        self._env = env
        self._on_death = on_death
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._has_settled = False

    async def run(self, host: str, port: int) -> None:
        """Runs until SIGTERM or SIGINT. Raises PortTaken; ChildDied if no replica ever starts."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        with bound_socket(host, port, shares_port=True) as held:
            port = held.getsockname()[1]
            env = {**self._env, "FOVEA_PORT": str(port)}
            log.info("%d replicas on %s", self._count, base_url(host, port))
            keeping = [asyncio.create_task(self._keep(number, env)) for number in range(self._count)]
            stopping = asyncio.create_task(stop.wait())
            try:
                done, _ = await asyncio.wait({stopping, *keeping}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (stopping, *keeping):
                    task.cancel()
                await self._stop()
            for task in done - {stopping}:
                task.result()

    async def _keep(self, number: int, env: Mapping[str, str]) -> None:
        """Keeps one replica running. Raises ChildDied if it ends early before any replica has settled."""
        wait_s = _FIRST_WAIT_S
        while True:
            started_at = time.monotonic()
            process = await asyncio.create_subprocess_exec(
                *self._program,
                env={**env, REPLICA: str(number)},
                process_group=0,  # Ctrl-C in a terminal goes to the parent alone
                preexec_fn=die_with_parent(),
            )
            self._running[number] = process
            settling = asyncio.get_running_loop().call_later(_SETTLED_S, self._settle)
            code = await process.wait()
            settling.cancel()
            self._on_death(process.pid)
            lived_s = time.monotonic() - started_at
            if not self._has_settled and code > 0:  # it ended by itself: its log says why
                raise ChildDied(f"A replica ended {lived_s:.0f} s after its start, with exit code {code}.")
            wait_s = _FIRST_WAIT_S if lived_s > _SETTLED_S else min(_LONGEST_WAIT_S, 2 * wait_s)
            log.warning("replica %d (process %d) died; it restarts in %.1f s", number, process.pid, wait_s)
            await asyncio.sleep(wait_s)

    def _settle(self) -> None:
        self._has_settled = True

    async def _stop(self) -> None:
        for process in self._running.values():
            with suppress(ProcessLookupError):
                process.terminate()
        for process in self._running.values():
            with suppress(TimeoutError):
                async with asyncio.timeout(_GRACE_S):
                    await process.wait()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


@contextmanager
def replicas_directory(home: Path) -> Iterator[Path]:
    """A new directory below `home` for the files that replicas share, removed at the end.

    Each start has its own, so what a client did to the models of an earlier server is no longer in force. Removes the
    directories of servers that were killed. Raises HomeNotWritable.
    """
    root = home.resolve() / "tmp"
    with ExitStack() as stack:
        try:
            remove_abandoned_directories(root)
            directory = stack.enter_context(temporary_directory(root))
        except OSError as error:
            raise HomeNotWritable(
                f"Nothing can be written to {root} ({error.strerror}).",
                hint="Choose another directory with --home (FOVEA_HOME).",
            ) from error
        yield directory


def replica_environment(env: Mapping[str, str], *, count: int) -> dict[str, str]:
    """`env` for one of `count` replicas: each takes its share of the cores, unless the operator says otherwise."""
    share = max(1, usable_cores() // count)
    return {"OMP_NUM_THREADS": str(share), **env}


def replica_socket(host: str, port: int) -> socket.socket:
    """A replica's own socket, listening. Raises PortTaken."""
    listener = bound_socket(host, port, shares_port=True)
    listener.listen(2048)
    return listener
