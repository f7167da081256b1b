"""The output of `fovea up`: the lines of every process, each with the name of its process."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import click

_COLOURS = {"fovea": "bright_white", "redis": "red", "api": "cyan", "worker": "green"}
_WIDTH = max(map(len, _COLOURS))


class Screen:
    """Writes lines to standard output, coloured if it is a terminal."""

    def relay(self, name: str, line: str) -> None:
        """Writes one line of a child."""
        self._write(name, line)

    def say(self, words: str) -> None:
        """Writes one line of `fovea up` itself."""
        self._write("fovea", words)

    def complain(self, words: str) -> None:
        """Writes one line of `fovea up` as a warning."""
        self._write("fovea", click.style(words, fg="yellow"))

    def banner(self, facts: Mapping[str, str]) -> None:
        """Writes the lines that say that everything is ready."""
        width = max(map(len, facts))
        self._write("fovea", click.style("Ready. Ctrl-C stops everything.", fg="green", bold=True))
        for what, value in facts.items():
            self._write("fovea", f"  {what:<{width}}  {click.style(value, bold=True)}")

    def _write(self, name: str, line: str) -> None:
        try:
            click.echo(click.style(f"{name:<{_WIDTH}} | ", fg=_COLOURS.get(name)) + line)
        except OSError:  # the reader has ended; children are still stopped in order
            sys.stdout = None
