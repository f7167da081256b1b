"""`fovea up`."""

from __future__ import annotations

from typing import Any

import click

from app.cli.failure import Failure
from app.cli.model_flags import given_values
from app.cli.settings_command import settings_command, settings_of
from app.processes import StackError, run_up
from app.settings import ApiSettings


@click.command(cls=settings_command(ApiSettings))
def up(**flags: Any) -> int:
    """Run all of Fovea on this machine: Redis, the API and a worker.

    The first Ctrl-C stops everything in order, a second one at once. Redis is private to this home and keeps its jobs
    across restarts. With FOVEA_REDIS_URL that Redis is used and none is started.
    """
    settings = settings_of(ApiSettings, flags)
    try:
        return run_up(settings, flags=given_values(ApiSettings, flags))
    except StackError as error:
        raise Failure(str(error), hint=error.hint) from error
