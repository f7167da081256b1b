"""How a command says no: words and a hint on stderr, and an exit code."""

from __future__ import annotations

from typing import IO, Any

import click

from app.cli import EXIT_PROBLEM


class Failure(click.ClickException):
    """Ends the command with a message, a way out and an exit code."""

    def __init__(
        self, message: str, *, hint: str | None = None, details: tuple[str, ...] = (), exit_code: int = EXIT_PROBLEM
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.details = details
        self.exit_code = exit_code

    def show(self, file: IO[Any] | None = None) -> None:
        """Writes it all to stderr."""
        click.echo(click.style("Error: ", fg="red", bold=True) + self.message, file=file, err=True)
        for detail in self.details:
            click.echo(f"  - {detail}", file=file, err=True)
        if self.hint:
            click.echo(click.style("Hint: ", fg="yellow") + self.hint, file=file, err=True)
