"""Children of the benchmark: started, asked until they answer, watched and ended with everything they started."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from benchmarks.serving.load import HOST, OK

MIB = 1024**2
_ANSWERS_WITHIN_S = 300.0  # torch.compile takes minutes the first time
_ENDS_WITHIN_S = 20.0
_LOOKS, _LOOK_EVERY_S = 6, 0.5
_BUILDER = "app.engine.builds.build_backend"
_NEVER = {400, 404, 405, 413, 415, 422}  # asking again would not help


class Unfit(Exception):
    """A server that did not start or does not answer what it should."""


@dataclass(frozen=True, kw_only=True)
class Child:
    """A server that runs."""

    process: subprocess.Popen[bytes]
    port: int
    began_at: float  # time.perf_counter()
    log: Path

    def pss_mib(self) -> float:
        """Proportional set size of the process and all that it started."""
        return tree_pss_mib(self.process.pid)

    def is_building(self) -> bool:
        """Whether Fovea builds a backend, or did within the last seconds: one build follows another."""
        for _ in range(_LOOKS):
            if _has_child(self.process.pid, _BUILDER):
                return True
            time.sleep(_LOOK_EVERY_S)
        return False

    def first_answer(self, path: str, content_type: str, body: bytes) -> tuple[float, dict[str, Any]]:
        """Asks until it answers 200: seconds from its start, and the answer.

        Raises Unfit if it ends or does not answer within five minutes.
        """
        deadline = time.monotonic() + _ANSWERS_WITHIN_S
        said = "nothing listens"
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Unfit(f"ended with {self.process.returncode}:\n{self._last_lines()}")
            connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
            try:
                connection.request("POST", path, body, {"Content-Type": content_type, "Accept": "application/json"})
                response = connection.getresponse()
                content = response.read()
                if response.status == OK:
                    answer: dict[str, Any] = json.loads(content)
                    return time.perf_counter() - self.began_at, answer
                if response.status in _NEVER:
                    raise Unfit(f"answered {response.status} {content[:300]!r}\n{self._last_lines()}")
                said = f"{response.status} {content[:300]!r}"
            except (OSError, http.client.HTTPException) as error:
                said = repr(error)
            finally:
                connection.close()
            time.sleep(0.02)
        raise Unfit(f"no answer within {_ANSWERS_WITHIN_S:.0f} s; last: {said}\n{self._last_lines()}")

    def _last_lines(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]


@contextmanager
def child(command: Sequence[str], env: Mapping[str, str], *, port: int, log: Path) -> Iterator[Child]:
    """`command` in a process group of its own, which is ended at the end."""
    with log.open("wb") as file:
        began_at = time.perf_counter()
        process = subprocess.Popen(
            command,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            process_group=0,  # not a session: where the kernel weighs those, the load generator would wait for seconds
        )
    try:
        yield Child(process=process, port=port, began_at=began_at, log=log)
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Asks the tree to end, then makes it. Children that left the group are ended too."""
    with suppress(psutil.NoSuchProcess):
        tree = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_ENDS_WITHIN_S)
        _, alive = psutil.wait_procs(tree, timeout=2)
        for each in alive:
            with suppress(psutil.NoSuchProcess):
                each.kill()
    process.kill()
    process.wait()


def tree_pss_mib(pid: int) -> float:
    """Proportional set size of a process and its children: pages they share are counted once."""
    total = 0
    try:
        parent = psutil.Process(pid)
        pids = [pid, *(each.pid for each in parent.children(recursive=True))]
    except psutil.NoSuchProcess:
        return 0.0
    for each in pids:
        with suppress(OSError):  # it has ended meanwhile
            for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total / MIB


def _has_child(pid: int, word: str) -> bool:
    """Whether a process below has `word` on its command line."""
    with suppress(psutil.NoSuchProcess):
        for each in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if word in each.cmdline():
                    return True
    return False


class PeakMemory:
    """The largest PSS of a process tree while it is watched; looked at once a second, for a look takes milliseconds."""

    def __init__(self, pid: int) -> None:
        self.peak_mib = 0.0
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._over.wait(1.0):
            self._look()

    def _look(self) -> None:
        self.peak_mib = max(self.peak_mib, tree_pss_mib(self._pid))
