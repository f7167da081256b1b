"""A `fovea up` of the demo's own: free ports, its own home, its lines in a file."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.client import Client, ServerUnreachable
from app.processes import StackError
from app.processes.address import base_url, free_port
from workers.supervision.child_process import code_environment, die_with_parent

_HOST = "127.0.0.1"
_STARTS_WITHIN_S = 180.0
_STOPS_WITHIN_S = 120.0


@contextmanager
def running_server(directory: Path) -> Iterator[str]:
    """Yields the URL of a server that is ready; its home is `directory`/data, its log `directory`/up.log.

    It is stopped at the end, whatever happens. Raises StackError if it does not start.
    """
    port = free_port(_HOST)
    log = directory / "up.log"
    command = [sys.executable, "-m", "app.cli", "up", "--home", "data", "--host", _HOST, "--port", str(port)]
    # Neither FOVEA_... nor the `.env` of the directory one happens to be in: what they say is about another server.
    env = {name: value for name, value in code_environment().items() if not name.startswith("FOVEA_")}
    # A network this small gains nothing from more threads, and threads that wait for each other cost much on a machine
    # that computes other things too.
    env["OMP_NUM_THREADS"] = "1"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 (our own module)
            command,
            cwd=directory,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            process_group=0,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 (no other thread runs yet)
        )
    try:
        url = base_url(_HOST, port)
        _wait_until_ready(process, url, log)
        yield url
    finally:
        _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN_S
    with Client(url, timeout_s=5, retries=0) as client:
        while not _is_ready(client):
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace").splitlines()[-15:]
                raise StackError("Fovea did not start:\n" + "\n".join(tail), hint=f"All it said is in {log}.")
            time.sleep(0.1)


def _is_ready(client: Client) -> bool:
    try:
        return client.readiness().status == "ready"
    except ServerUnreachable:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_STOPS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.wait()
