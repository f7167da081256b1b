"""Failures of commands: a message and a hint on stderr, and an exit code."""

from __future__ import annotations

from typing import IO, Any

import click

from app.cli import EXIT_JOB_CANCELLED, EXIT_JOB_FAILED, EXIT_PROBLEM, EXIT_UNREACHABLE, EXIT_USAGE

_MOST_DETAILS = 20


class Failure(click.ClickException):
    """Ends the command with a message and a hint: the server refused, or a local error."""

    exit_code = EXIT_PROBLEM

    def __init__(self, message: str, *, hint: str | None = None, details: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.hint = hint
        self.details = details

    def show(self, file: IO[Any] | None = None) -> None:
        """Writes message, details and hint to stderr."""
        click.echo(click.style("Error: ", fg="red", bold=True) + self.message, file=file, err=True)
        for detail in self.details[:_MOST_DETAILS]:
            click.echo(f"  - {detail}", file=file, err=True)
        if len(self.details) > _MOST_DETAILS:
            click.echo(f"  - and {len(self.details) - _MOST_DETAILS} more", file=file, err=True)
        if self.hint:
            click.echo(click.style("Hint: ", fg="yellow") + self.hint, file=file, err=True)


class UsageFailure(Failure):
    """Wrong usage of the command."""

    exit_code = EXIT_USAGE


class UnreachableFailure(Failure):
    """No server answers."""

    exit_code = EXIT_UNREACHABLE


class JobFailedFailure(Failure):
    """The job failed."""

    exit_code = EXIT_JOB_FAILED


class JobCancelledFailure(Failure):
    """The job was cancelled."""

    exit_code = EXIT_JOB_CANCELLED
