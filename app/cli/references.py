"""`name` and `name/3` on the command line."""

from __future__ import annotations

import click


def reference(value: str) -> tuple[str, int | None]:
    """`ants-bees/3` is ("ants-bees", 3); without a version, None."""
    name, slash, version = value.partition("/")
    if slash and not (version.isdecimal() and int(version) > 0):
        raise click.BadParameter(f"{value!r} has no valid version: write it as {name}/3.")
    return name, int(version) if slash else None


def version_reference(value: str) -> tuple[str, int]:
    """`ants-bees/3` is ("ants-bees", 3); the version is required."""
    name, version = reference(value)
    if version is None:
        raise click.BadParameter(f"{value!r} needs a version: write it as {name}/3.")
    return name, version
