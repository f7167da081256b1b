"""How a command finds its server, and the failures of doing so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click
from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.cli.failure import Failure, JobCancelledFailure, JobFailedFailure, UnreachableFailure
from app.cli.model_flags import refuse
from app.client import Client, ClientError, JobCancelled, JobFailed, ProblemError, ServerUnreachable
from app.processes.address import base_url
from app.settings import ApiSettings

url_option = click.option(
    "--url", metavar="URL", help="Server to talk to. [env: FOVEA_URL, else FOVEA_HOST and FOVEA_PORT]"
)


class ServerAddress(BaseSettings):
    """The address of the server, from the environment and `.env`."""

    model_config = SettingsConfigDict(env_prefix="FOVEA_", env_file=".env", env_file_encoding="utf-8", extra="ignore")

    url: str | None = None
    host: str = ApiSettings.model_fields["host"].default
    port: int = ApiSettings.model_fields["port"].default


@contextmanager
def connected(url: str | None) -> Iterator[Client]:
    """A client of the server. Its errors end the command with a message and the right exit code."""
    try:
        with Client(url or _url_before_the_command() or _default_url()) as client:
            yield client
    except ClientError as error:
        raise failure_of(error) from error
    except OSError as error:
        raise Failure(f"{error.filename or 'A file'}: {error.strerror or error}") from error


def failure_of(error: ClientError) -> Failure:
    """The failure of a command whose client raised `error`."""
    match error:
        case ServerUnreachable():
            return UnreachableFailure(str(error), hint=error.hint)
        case JobFailed():
            return JobFailedFailure(str(error), hint=error.hint)
        case JobCancelled():
            return JobCancelledFailure(str(error), hint=error.hint)
        case ProblemError():
            # An error with one detail repeats it.
            details = error.details if len(error.details) > 1 else ()
            words = f"{error.detail} [{error.code}, request {error.request_id}]"
            return Failure(words, hint=error.hint, details=details)
        case _:
            return Failure(str(error), hint=error.hint)


def _url_before_the_command() -> str | None:
    """The URL of `fovea --url URL jobs list`."""
    context = click.get_current_context(silent=True)
    return context.find_root().params.get("url") if context else None


def _default_url() -> str:
    try:
        address = ServerAddress()
    except ValidationError as error:
        refuse(error, given=(), env_prefix="FOVEA_")
    return address.url or base_url(address.host, address.port or ApiSettings.model_fields["port"].default)
