"""What `fovea up` shows: every process's lines, with its name before them."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import click

_COLOURS = {"fovea": "bright_white", "redis": "red", "api": "cyan", "worker": "green"}
_WIDTH = max(map(len, _COLOURS))


class Screen:
    """Writes lines to standard output, coloured if it is a terminal."""

    def relay(self, name: str, line: str) -> None:
        """One line of a child."""
        self._write(name, line)

    def say(self, words: str) -> None:
        """One line of our own."""
        self._write("fovea", words)

    def complain(self, words: str) -> None:
        """One line of our own that somebody should read."""
        self._write("fovea", click.style(words, fg="yellow"))

    def banner(self, facts: Mapping[str, str]) -> None:
        """The lines that say all is ready."""
        width = max(map(len, facts))
        self._write("fovea", click.style("Ready. Ctrl-C stops everything.", fg="green", bold=True))
        for what, value in facts.items():
            self._write("fovea", f"  {what:<{width}}  {click.style(value, bold=True)}")

    def _write(self, name: str, line: str) -> None:
        try:
            click.echo(click.style(f"{name:<{_WIDTH}} | ", fg=_COLOURS.get(name)) + line)
        except OSError:  # nobody reads any more, which is no reason to leave children half stopped
            sys.stdout = None
