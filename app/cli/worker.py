"""`fovea worker`. The worker is imported after the flags are read."""

from __future__ import annotations

from typing import Any

import click

from app.cli.settings_command import settings_command, settings_of
from workers.settings import WorkerSettings


@click.command(cls=settings_command(WorkerSettings))
def worker(**flags: Any) -> int:
    """Run one worker alone."""
    settings = settings_of(WorkerSettings, flags)
    from workers.main import run_worker

    return run_worker(settings)
