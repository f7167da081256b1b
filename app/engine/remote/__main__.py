"""`python -m app.engine.remote LISTENER PULSE`: the engine process. It reads its settings as JSON from standard input.

LISTENER is the descriptor of a listening Unix socket, PULSE that of a pipe. The process writes a byte into the pipe
when it begins to serve, and one per second while its event loop runs and no batch is stuck. The parent kills a process
whose bytes stop.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from contextlib import suppress
from functools import partial

from app.engine.lane import Lane
from app.engine.loaded_models import LoadedModels
from app.engine.remote.server import EngineServer
from app.engine.setup import arena_bytes, longest_batch_s, open_models
from app.processes.pulse import beat
from app.settings import ApiSettings
from models.architectures import catalog
from models.store.registry import Registry
from workers.log_lines import configure_logging

log = logging.getLogger(__name__)


def main() -> None:
    """Runs an engine process until a signal ends it."""
    listener, pulse = (int(argument) for argument in sys.argv[1:])
    settings = ApiSettings.model_validate_json(sys.stdin.buffer.read())
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    with socket.socket(fileno=listener) as listening:
        asyncio.run(_serve(settings, listening, pulse))


async def _serve(settings: ApiSettings, listener: socket.socket, pulse: int) -> None:
    life = asyncio.current_task()
    assert life is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, life.cancel)
    registry = Registry(settings.registry_dir, reserved_names=frozenset(catalog.names()))
    # each HTTP process caches lookups: a second cache here would double their age
    models, builds = await asyncio.to_thread(open_models, settings, registry, lookup_every_s=0.0, replicas=1)
    lane = Lane()
    server = EngineServer(models, lane, arena_bytes=arena_bytes(settings))
    preloading = [asyncio.create_task(_preload(models, reference)) for reference in {*settings.preload, *settings.pin}]
    beating = asyncio.create_task(beat(pulse, partial(_is_well, lane, longest_batch_s(settings))))
    log.info("the engine process serves on %s", models.device)
    try:
        with suppress(asyncio.CancelledError):
            await server.serve(listener)
    finally:
        for task in (*preloading, beating):
            task.cancel()
        await builds.close()
        lane.close()
        await models.close()


async def _preload(models: LoadedModels, reference: str) -> None:
    """Loads a model before a request asks. HTTP processes do so at their start only; this process may start later."""
    with suppress(Exception):  # LoadedModels logs it
        await models.get(reference)


def _is_well(lane: Lane, longest_s: float) -> bool:
    if lane.busy_s <= longest_s:
        return True
    log.error("a batch has been on the device for %.0f s; at most %.0f s are allowed", lane.busy_s, longest_s)
    return False


if __name__ == "__main__":
    main()
