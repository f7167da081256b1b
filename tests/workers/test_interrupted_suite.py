"""A killed test suite leaves no process behind, whatever its tests had started."""

from __future__ import annotations

import os
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from tests import children
from tests.waiting import wait_until
from tests.workers.endless_suite import RUNNING

SUITE = "tests/workers/endless_suite.py"
WORKER = r"app\.cli worker|celeryd"  # Celery renames its process where setproctitle is installed


def test_killed_suite_leaves_no_process(tmp_path: Path) -> None:
    options = ["--basetemp", str(tmp_path / "suite"), "--numprocesses", "1", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, SUITE]
    running = tmp_path / "running"
    environment = {**os.environ, RUNNING: str(running)}
    with (
        (tmp_path / "output").open("wb") as output,
        children.child(command, stdout=output, stderr=output, env=environment) as suite,
    ):
        wait_until(running.exists)
        started = psutil.Process(suite.pid).children(recursive=True)
        commands = [command_of(process) for process in started]
        try:
            for part in (r"redis-server", WORKER, r"workers\.training"):
                assert any(re.search(part, command) for command in commands), commands

            suite.send_signal(signal.SIGKILL)

            wait_until(lambda: not [process for process in started if is_alive(process)])
        finally:
            for process in started:
                if is_alive(process):
                    process.kill()


def command_of(process: psutil.Process) -> str:
    with suppress(psutil.NoSuchProcess):  # libraries start programs that end at once
        return " ".join(process.cmdline())
    return ""


def is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
