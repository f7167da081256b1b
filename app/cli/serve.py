"""`fovea serve`. What it serves is imported after its flags are read: torch takes seconds."""

from __future__ import annotations

from typing import Any

import click

from app.cli.failure import Failure
from app.cli.settings_command import settings_command, settings_of
from app.local_stack import StackError
from app.local_stack.address import check_port
from app.settings import ApiSettings


@click.command(cls=settings_command(ApiSettings))
def serve(**flags: Any) -> None:
    """Run the API alone."""
    settings = settings_of(ApiSettings, flags)
    try:
        check_port(settings.host, settings.port)
    except StackError as error:
        raise Failure(str(error), hint=error.hint) from error
    import uvicorn

    from app.log_lines import configure_logging
    from app.main import create_app

    configure_logging(level=settings.log_level, log_format=settings.log_format)
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
    )
