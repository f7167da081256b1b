"""`fovea serve`. The application is imported after the flags are read, because torch takes seconds."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from app.cli.failure import Failure
from app.cli.model_flags import given_values
from app.cli.settings_command import settings_command, settings_of
from app.processes import StackError
from app.processes.address import check_port
from app.processes.descriptors import raise_descriptor_limit
from app.processes.engine_process import EngineProcess, is_own_engine_wanted
from app.processes.light_imports import import_torchvision
from app.processes.replicas import (
    REPLICA,
    REPLICAS_DIRECTORY,
    Replicas,
    replica_environment,
    replica_socket,
    replicas_directory,
)
from app.processes.stack import child_environment
from app.settings import ApiSettings
from workers.log_lines import configure_logging

_NOT_STARTED = 3  # uvicorn's own exit code for it


@click.command(cls=settings_command(ApiSettings))
def serve(**flags: Any) -> None:
    """Run the API alone."""
    settings = settings_of(ApiSettings, flags)
    # torch reads it when it is imported: its idle threads would keep their cores busy for milliseconds
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    configure_logging(level=settings.log_level, log_format=settings.log_format)
    raise_descriptor_limit()
    try:
        if REPLICA in os.environ:
            _serve(settings)
            return
        check_port(settings.host, settings.port)
        if settings.processes > 1:
            _serve_many(settings, given_values(ApiSettings, flags))
        else:
            _serve(settings)
    except StackError as error:
        raise Failure(str(error), hint=error.hint) from error


def _serve(settings: ApiSettings) -> None:
    import_torchvision()
    import uvicorn

    from app.http.protocol import BoundedHttpProtocol
    from app.main import create_app

    config = uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        root_path=settings.root_path,
        http=BoundedHttpProtocol,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    sockets = [replica_socket(settings.host, settings.port)] if REPLICA in os.environ else None
    server = uvicorn.Server(config)
    gc.collect()
    gc.freeze()  # otherwise a full collection visits 400,000 objects of torch, and stops the server for 0.2 s
    try:
        server.run(sockets)
    finally:
        gc.unfreeze()  # otherwise objects of libraries live until exit, and some libraries report them as leaks
    if not server.started:
        sys.exit(_NOT_STARTED)


def _serve_many(settings: ApiSettings, flags: dict[str, Any]) -> None:
    env = child_environment(
        {name: str(value) for name, value in flags.items()}, port=settings.port, redis_url=settings.redis_url
    )
    from app.metrics import shared_values

    with TemporaryDirectory(prefix="fovea-serve-") as metrics, replicas_directory(settings.home) as shared:
        replicas = partial(
            Replicas,
            [sys.executable, "-m", "app.cli", "serve"],
            count=settings.processes,
            on_death=partial(shared_values.forget_process, Path(metrics)),
        )
        env = replica_environment(env, count=settings.processes)
        env |= {shared_values.DIRECTORY_VARIABLE: metrics, REPLICAS_DIRECTORY: str(shared)}
        asyncio.run(_run_many(settings, replicas, env))


async def _run_many(settings: ApiSettings, replicas: Callable[..., Replicas], env: dict[str, str]) -> None:
    async with AsyncExitStack() as stack:
        if settings.engine_socket:
            chosen = {}
        elif is_own_engine_wanted(settings):
            process = await stack.enter_async_context(EngineProcess(settings))
            chosen = {"FOVEA_ENGINE_SOCKET": str(process.path)}
        else:
            chosen = {"FOVEA_ENGINE": "thread"}
        await replicas(env={**env, **chosen}).run(settings.host, settings.port)
