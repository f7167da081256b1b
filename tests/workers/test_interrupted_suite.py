"""A killed test suite leaves no process behind, whatever its tests had started."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import psutil

from tests import children
from tests.waiting import wait_until

SUITE = "tests/workers/endless_suite.py"


def test_killed_suite_leaves_no_process(tmp_path: Path) -> None:
    options = ["--basetemp", str(tmp_path / "suite"), "--numprocesses", "1", "-p", "no:cacheprovider"]
    with (
        (tmp_path / "output").open("wb") as output,
        children.child([sys.executable, "-m", "pytest", *options, SUITE], stdout=output, stderr=output) as suite,
    ):
        wait_until(lambda: list(tmp_path.rglob("running")))
        started = psutil.Process(suite.pid).children(recursive=True)
        commands = [" ".join(process.cmdline()) for process in started]
        try:
            for part in ("redis-server", "app.cli worker", "workers.training"):
                assert any(part in command for command in commands), commands

            suite.send_signal(signal.SIGKILL)

            wait_until(lambda: not [process for process in started if is_alive(process)])
        finally:
            for process in started:
                if is_alive(process):
                    process.kill()


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
