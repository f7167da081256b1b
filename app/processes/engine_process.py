"""The engine process as a child: whether to start one, restarts after its death, and its stop.

A process that hangs has no pulse. It is killed, and then restarted like one that died.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from app.processes.address import sockets_parent
from app.processes.errors import ChildDied
from app.processes.pulse import Pulse
from app.settings import ApiSettings
from workers.supervision.child_process import code_environment, die_with_parent

log = logging.getLogger(__name__)

ENGINE_PROGRAM = (sys.executable, "-m", "app.engine.remote")

_SETTLED_S = 30.0  # a process that lived this long has started well
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 15.0
_START_S = 120
_LONGEST_SILENCE_S = 20  # longer than a busy machine pauses, and short enough to retry a request of 30 s
_GRACE_S = 5.0
_BACKLOG = 1024


class EngineProcess:
    """The engine process of a device. The socket belongs to this process, so that clients wait for a restart."""

    def __init__(self, settings: ApiSettings, *, program: Sequence[str] = ENGINE_PROGRAM) -> None:
        self._program = program
        self._settings = settings.model_copy(update={"home": settings.home.resolve()}).model_dump_json().encode()
        self._directory: Path | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._running: subprocess.Popen[bytes] | None = None
        self._pulse: Pulse | None = None  # of the running process
        self._waiter = ThreadPoolExecutor(1, thread_name_prefix="engine process")
        self._keeping: asyncio.Task[None] | None = None

    @property
    def path(self) -> Path:
        """The path of its socket, after the start."""
        assert self._directory is not None
        return self._directory / "socket"

    @property
    def pid(self) -> int | None:
        """The id of the running process."""
        return self._running.pid if self._running is not None and self._running.poll() is None else None

    async def start(self) -> None:
        """Starts the process and returns when it serves. From then on it is restarted when it dies or hangs.

        Call it in a thread that lives as long as the engine process. Raises ChildDied.
        """
        self._directory = Path(tempfile.mkdtemp(prefix="fovea-engine-", dir=sockets_parent()))  # of mode 0700
        self._listener.bind(str(self.path))
        self._listener.listen(_BACKLOG)
        try:
            pulse = self._start()
            async with asyncio.timeout(_START_S):
                await pulse.begins()
        except (EOFError, TimeoutError) as error:
            await self.stop()
            raise ChildDied("The engine process did not start; its log lines say why.") from error
        except BaseException:
            await self.stop()
            raise
        self._keeping = asyncio.create_task(self._keep(), name="engine process")

    async def stop(self) -> None:
        """Asks the process to end, and kills it if it does not."""
        if self._keeping is not None:
            self._keeping.cancel()
        self._listener.close()
        running = self._running
        if running is not None:
            with suppress(ProcessLookupError):
                running.terminate()
            ended = asyncio.get_running_loop().run_in_executor(None, running.wait)
            await asyncio.wait([ended], timeout=_GRACE_S)
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            await ended
        self._waiter.shutdown(wait=False)
        if self._pulse is not None:
            self._pulse.close()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    async def __aenter__(self) -> EngineProcess:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    def _start(self) -> Pulse:
        ended, self._pulse = self._pulse, None  # not used again, whatever fails below
        if ended is not None:
            ended.close()
        pulse = self._pulse = Pulse()
        settings = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe would need a writer
        settings.write(self._settings)
        settings.seek(0)
        with settings:
            self._running = subprocess.Popen(  # noqa: S603
                [*self._program, str(self._listener.fileno()), str(pulse.beating)],
                stdin=settings,
                env=code_environment(),
                pass_fds=(self._listener.fileno(), pulse.beating),
                process_group=0,  # Ctrl-C in a terminal reaches only the parent
                preexec_fn=die_with_parent(),  # noqa: PLW1509
            )
        pulse.hand_over()
        return pulse

    async def _keep(self) -> None:
        wait_s = _FIRST_WAIT_S
        while True:
            assert self._running is not None
            started_at = time.monotonic()
            watching = asyncio.create_task(
                self._kill_if_it_hangs(self._running, self._pulse), name="engine process's pulse"
            )
            try:
                code = await asyncio.get_running_loop().run_in_executor(self._waiter, self._running.wait)
            finally:
                watching.cancel()
            wait_s = _FIRST_WAIT_S if time.monotonic() - started_at > _SETTLED_S else min(_LONGEST_WAIT_S, 2 * wait_s)
            log.warning(
                "the engine process (%d) died with code %d; it restarts in %.1f s", self._running.pid, code, wait_s
            )
            await asyncio.sleep(wait_s)
            try:
                self._start()
            except OSError as error:
                log.warning("the engine process cannot be started: %s", error)

    async def _kill_if_it_hangs(self, running: subprocess.Popen[bytes], pulse: Pulse | None) -> None:
        if pulse is None:  # the next process could not be started, and this one has ended
            return
        silent_s = await pulse.stops(first_within=_START_S, missed=_LONGEST_SILENCE_S)
        log.error("the engine process (%d) had no pulse for %d s: it hangs and is killed", running.pid, silent_s)
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)


def is_own_engine_wanted(settings: ApiSettings) -> bool:
    """Whether models run in a separate engine process, as FOVEA_ENGINE says.

    `auto` chooses one if several HTTP processes share a GPU: otherwise each holds its own copy of every model and makes
    its own batches. Raises ChildDied on systems without support for it.
    """
    if settings.engine == "process" and not hasattr(os, "memfd_create"):
        raise ChildDied("FOVEA_ENGINE is 'process', which needs Linux.", hint="Use 'thread'.")
    if settings.engine != "auto":
        return settings.engine == "process"
    return settings.processes > 1 and hasattr(os, "memfd_create") and _serves_on_cuda(settings.device)


def _serves_on_cuda(device: str) -> bool:
    if device != "auto":
        return device.startswith("cuda")
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    # in a child process: torch is large, and the parent does not need it
    code = "from app.engine.devices import choose_device; print(choose_device('auto').type)"
    asked = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], env=code_environment(), capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() == "cuda"
