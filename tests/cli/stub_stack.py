"""`fovea up` with small programs in place of the API and the worker: python -m tests.cli.stub_stack HOME API WORKER."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from app.processes.address import base_url, free_port
from app.processes.home import lock_home
from app.processes.redis_server import RedisPlan, find_redis_server, prepare
from app.processes.screen import Screen
from app.processes.stack import Stack
from tests.waiting import PATIENCE_S

READY_API = """
import http.server, os
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["FOVEA_PORT"])), Ready).serve_forever()
"""
IDLE = "import time; time.sleep(600)"


def main(home: Path, api: str, worker: str) -> int:
    """Runs them until a signal or a death."""
    port = free_port()
    url = base_url("127.0.0.1", port)
    lock = lock_home(home, url=url)
    plan = RedisPlan(program=find_redis_server(), directory=home / "redis")
    prepare(plan)
    stack = Stack(
        env={**os.environ, "FOVEA_PORT": str(port)},
        redis=plan,
        url=url,
        home=home,
        lock_descriptor=lock.descriptor,
        programs={"serve": [sys.executable, "-uc", api], "worker": [sys.executable, "-uc", worker]},
        worker_grace_s=2 * PATIENCE_S,  # a test never sees it run out
        screen=Screen(),
    )
    return asyncio.run(stack.run())


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
