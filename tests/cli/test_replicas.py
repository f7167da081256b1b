"""Replicas share a port, are started again, and end together. The replicas are small stand-ins."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests import children
from tests.cli.processes import running_below
from tests.redis_server import free_port
from tests.waiting import PATIENCE_S, wait_until

SERVER = """
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
from app.processes.replicas import replica_socket
class Says(BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{os.getpid()} {os.environ['OMP_NUM_THREADS']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
server = HTTPServer(("127.0.0.1", 0), Says, bind_and_activate=False)
server.socket.close()
server.socket = replica_socket("127.0.0.1", int(os.environ["FOVEA_PORT"]))
server.serve_forever()
"""
GIVES_UP = "raise SystemExit(3)"
PARENT = """
import asyncio, os, sys
from app.processes.replicas import Replicas, replica_environment
env = replica_environment(os.environ, count=2)
asyncio.run(Replicas([sys.executable, "-c", sys.argv[1]], count=2, env=env).run("127.0.0.1", int(sys.argv[2])))
"""


@contextmanager
def replicas(program: str, port: int) -> Iterator[children.Process]:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", PARENT, program, str(port)]
    with children.child(command, env=environment, stderr=subprocess.PIPE) as parent:
        yield parent


def who_answers(port: int) -> set[int]:
    """The processes that answer, of twenty connections."""
    found = set()
    for _ in range(20):
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE_S) as answer:
            found.add(int(answer.read().split()[0]))
    return found


def test_replicas_share_the_port_and_the_cores_and_a_killed_one_comes_back() -> None:
    port = free_port()
    with replicas(SERVER, port) as parent:
        wait_until(lambda: len(who_answers(port)) == 2)
        first = who_answers(port)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE_S) as answer:
            assert int(answer.read().split()[1]) == max(1, len(os.sched_getaffinity(0)) // 2)

        victim = min(first)
        os.kill(victim, signal.SIGKILL)

        wait_until(lambda: len(who_answers(port)) == 2 and victim not in who_answers(port))
        assert len(first & who_answers(port)) == 1

        below = running_below(parent.pid)
        parent.terminate()
        assert parent.wait(PATIENCE_S) == 0
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below))


def test_replicas_end_with_a_parent_that_was_killed() -> None:
    port = free_port()
    with replicas(SERVER, port) as parent:
        wait_until(lambda: len(who_answers(port)) == 2)
        parent.kill()
        parent.wait(PATIENCE_S)
        wait_until(lambda: not who_answers(port))


def test_replicas_that_cannot_start_are_not_started_for_ever() -> None:
    with replicas(GIVES_UP, free_port()) as parent:
        _, said = parent.communicate(timeout=PATIENCE_S)
    assert parent.returncode == 1
    assert b"exit code 3" in said


@pytest.mark.parametrize("flag", ["0", "-1", "many"])
def test_number_of_replicas_must_make_sense(flag: str) -> None:
    ended = children.run([sys.executable, "-m", "app.cli", "serve", "--processes", flag], check=False)
    assert ended.returncode == 2
    assert "--processes" in ended.stderr
