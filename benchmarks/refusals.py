"""What a refusal costs a full server: `python -m benchmarks.refusals`. Takes a minute.

A server in a process of its own, whose places are all taken, is asked by many clients. Counted is the CPU time of that
process, kernel included, a refusal; beside it that of an application which answers 503 and does nothing else, so that
the difference is Fovea's.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from app.http.protocol import BoundedHttpProtocol
from app.main import create_app
from app.processes.address import free_port
from app.settings import ApiSettings
from benchmarks.serving.load import HOST, UNAVAILABLE, closed_loop, raw_request, run
from benchmarks.serving.peer_environment import ROOT
from benchmarks.serving.processes import Child, child
from benchmarks.serving.tables import print_table
from models.predictors.classification import ClassSelection
from workers.log_lines import configure_logging

SECONDS: Final = 3.0
CLIENTS: Final = 48
PATHS: Final = {
    "Fovea": "/v1/classify?model=ants-bees",
    "Fovea, V2": "/v2/models/ants-bees/infer",
    "Fovea, TorchServe": "/predictions/ants-bees",
}
SIZES_BYTES: Final = (1_000, 110_000)
LEVELS: Final = ("WARNING", "INFO")
NOTHING: Final = "-"


def main() -> None:
    """Prints the table."""
    rows = _rows({"503 and nothing else": "/"}, level=NOTHING)
    for level in LEVELS:
        rows += _rows(PATHS, level=level)
    print_table(["server", "log level", "body, bytes", "CPU, us a refusal", "p99, ms"], rows)


def _rows(paths: Mapping[str, str], *, level: str) -> list[tuple[str, ...]]:
    """Of one server."""
    rows: list[tuple[str, ...]] = []
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        log = Path(name) / "server.log"
        command = [sys.executable, "-m", "benchmarks.refusals", str(port), level, name]
        with child(command, {"PYTHONPATH": str(ROOT)}, port=port, log=log) as server:
            for title, path in paths.items():
                for size_bytes in SIZES_BYTES:
                    cost_us, p99_ms = _measure(server, raw_request(path, bytes(size_bytes)))
                    rows.append((title, level, f"{size_bytes:,}", f"{cost_us:.0f}", f"{p99_ms:.1f}"))
    return rows


def _measure(server: Child, request: bytes) -> tuple[float, float]:
    """CPU time, microseconds a refusal; the 99th percentile of their times, milliseconds."""
    process = psutil.Process(server.process.pid)
    while not (warm := run(closed_loop(server.port, [request], concurrency=CLIENTS, seconds=1.0))).answered:
        assert process.is_running(), server.log.read_text()
    assert len(warm.latencies_s[UNAVAILABLE]) == warm.answered, "there was room"
    before = process.cpu_times()
    tally = run(closed_loop(server.port, [request], concurrency=CLIENTS, seconds=SECONDS))
    after = process.cpu_times()
    cpu_s = after.user + after.system - before.user - before.system
    return cpu_s / len(tally.latencies_s[UNAVAILABLE]) * 1e6, tally.quantile_ms(0.99, UNAVAILABLE)


async def _answer_503(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 -- ASGI's
    headers = [(b"content-length", b"0"), (b"retry-after", b"1")]
    await send({"type": "http.response.start", "status": UNAVAILABLE, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _full_fovea(home: Path) -> FastAPI:
    """Fovea with one place, and a request in it whose model is never loaded."""
    settings = ApiSettings(
        _env_file=None,
        home=home,
        redis_url="redis://127.0.0.1:9/0",
        device="cpu",
        offline=True,
        max_pending_images=1,
        max_images_per_request=1,
    )
    app = create_app(settings)
    opened: Any = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with opened(app):
            engine = app.state.services.engine
            engine.models.get = lambda *_: asyncio.Event().wait()
            filling = asyncio.create_task(engine.predict("ants-bees", [b""], ClassSelection(), timeout_s=3600))
            yield
            filling.cancel()

    app.router.lifespan_context = lifespan
    return app


def _serve(port: int, level: str, home: Path) -> None:
    configure_logging(level=LEVELS[0] if level == NOTHING else level, log_format="text")
    app: ASGIApp = _answer_503 if level == NOTHING else _full_fovea(home)
    gc.freeze()  # as `fovea serve` does
    uvicorn.run(app, host=HOST, port=port, http=BoundedHttpProtocol, log_config=None, access_log=False)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        _serve(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
