"""A real `fovea up` for tests: Redis, API and worker on free ports, in a home of their own."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests import children
from tests.waiting import PATIENCE_S, wait_until


@dataclass(frozen=True, kw_only=True)
class RealStack:
    """A running `fovea up`."""

    process: children.Process
    home: Path
    output: Path
    mark: str  # NAME=value in the environment of all its processes

    def wait_until_ready(self) -> str:
        """The URL its banner tells."""
        found = wait_until(lambda: self._banner() or self.process.poll() is not None)
        assert isinstance(found, re.Match), self.output.read_text()
        return found[1]

    def interrupt(self) -> int:
        """Ctrl-C; its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE_S)

    def _banner(self) -> re.Match[str] | None:
        return re.search(r"API +(http://\S+)", self.output.read_text())


@contextmanager
def real_stack(home: Path, *flags: str, output: Path) -> Iterator[RealStack]:
    """Starts it and, whatever happens, leaves nothing behind."""
    mark = f"FOVEA_TEST_STACK={output}"
    env = {name: value for name, value in os.environ.items() if not name.startswith("FOVEA_")}
    name, _, value = mark.partition("=")
    command = [sys.executable, "-m", "app.cli", "up", "--home", str(home), "--port", "0", *flags]
    env |= {name: value, "OMP_NUM_THREADS": "1"}
    with output.open("wb") as file, children.child(command, stdout=file, stderr=file, env=env) as process:
        stack = RealStack(process=process, home=home, output=output, mark=mark)
        yield stack
        stack.interrupt()
