"""What `fovea up` does when its children end or are told to; the children are small stand-ins, Redis is real."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import children
from tests.cli.processes import name_of, running_below, running_with
from tests.cli.stub_stack import IDLE, READY_API
from tests.waiting import PATIENCE_S, wait_until

SAYS_WHEN_ASKED_TO_END = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("worker says goodbye")))
print("working")
time.sleep(600)
"""
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); time.sleep(600)"


def test_ctrl_c_stops_worker_api_and_redis_in_that_order(tmp_path: Path) -> None:
    with _stack(tmp_path, READY_API, SAYS_WHEN_ASKED_TO_END) as (process, output):
        _wait_for(output, "Ready.", "working")
        process.send_signal(signal.SIGINT)
        code = process.wait(PATIENCE_S)

    assert code == 0
    text = output.read_text()
    assert text.index("worker says goodbye") < text.index("Redis is now ready to exit") < text.index("Stopped.")
    assert not running_with(f"STACK_TEST={tmp_path}")


def test_sigterm_stops_everything_too(tmp_path: Path) -> None:
    with _stack(tmp_path, READY_API, IDLE) as (process, output):
        _wait_for(output, "Ready.")
        process.terminate()
        assert process.wait(PATIENCE_S) == 0

    assert not running_with(f"STACK_TEST={tmp_path}")


def test_second_ctrl_c_kills_what_does_not_listen(tmp_path: Path) -> None:
    with _stack(tmp_path, READY_API, DEAF) as (process, output):
        _wait_for(output, "Ready.", "deaf")
        process.send_signal(signal.SIGINT)
        _wait_for(output, "Press Ctrl-C again to kill.")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0

    assert not running_with(f"STACK_TEST={tmp_path}")


def test_api_that_ends_takes_the_rest_down_and_is_named(tmp_path: Path) -> None:
    with _stack(tmp_path, "import sys; sys.exit(7)", IDLE) as (process, output):
        assert process.wait(PATIENCE_S) == 1

    assert "api ended by itself (exit code 7)" in output.read_text()
    assert not running_with(f"STACK_TEST={tmp_path}")


def test_ctrl_c_while_everything_is_taken_down_kills(tmp_path: Path) -> None:
    dies_when_the_worker_is_deaf = f"""
import pathlib, sys, time
while "deaf" not in pathlib.Path({str(tmp_path / "output")!r}).read_text(): time.sleep(0.05)
sys.exit(1)
"""
    with _stack(tmp_path, dies_when_the_worker_is_deaf, DEAF) as (process, output):
        _wait_for(output, "everything else is stopped")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 1

    assert not running_with(f"STACK_TEST={tmp_path}")


def test_redis_that_is_killed_takes_the_rest_down_and_is_named(tmp_path: Path) -> None:
    with _stack(tmp_path, READY_API, IDLE) as (process, output):
        _wait_for(output, "Ready.")
        (redis,) = (pid for pid in running_below(process.pid) if name_of(pid).endswith("-server"))
        os.kill(redis, signal.SIGKILL)
        assert process.wait(PATIENCE_S) == 1

    assert "redis ended by itself (killed by SIGKILL)" in output.read_text()
    assert not running_with(f"STACK_TEST={tmp_path}")


def test_worker_that_ends_is_started_again(tmp_path: Path) -> None:
    with _stack(tmp_path, READY_API, "import sys; print('born'); sys.exit(3)") as (process, output):
        wait_until(lambda: output.read_text().count("born") == 2)
        process.terminate()
        assert process.wait(PATIENCE_S) == 0

    assert "worker ended by itself (exit code 3); it restarts in 1 s." in output.read_text()


def test_killed_parent_leaves_no_children_and_its_home_free(tmp_path: Path) -> None:
    with _stack(tmp_path, READY_API, DEAF) as (process, output):
        _wait_for(output, "Ready.", "deaf")
        assert len(running_below(process.pid)) == 3
        process.kill()
    wait_until(lambda: not running_with(f"STACK_TEST={tmp_path}"))

    with _stack(tmp_path, READY_API, IDLE) as (process, output):
        _wait_for(output, "Ready.")


@contextmanager
def _stack(home: Path, api: str, worker: str) -> Iterator[tuple[children.Process, Path]]:
    output = home / "output"
    command = [sys.executable, "-m", "tests.cli.stub_stack", str(home), api, worker]
    environment = {**os.environ, "STACK_TEST": str(home)}
    with output.open("wb") as file, children.child(command, stdout=file, stderr=file, env=environment) as process:
        yield process, output


def _wait_for(output: Path, *words: str) -> None:
    wait_until(lambda: all(word in output.read_text() for word in words))
