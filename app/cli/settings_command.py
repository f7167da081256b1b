"""A command whose flags are a settings class's fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import click
from pydantic import ValidationError

from app.cli.model_flags import flags_of, given_values, refuse
from workers.settings import WorkerSettings

ENV_PREFIX = "FOVEA_"
Settings = TypeVar("Settings", bound=WorkerSettings)


def settings_command(kind: type[WorkerSettings]) -> type[click.Command]:
    """A command class with a flag for every field of `kind`. The flags are created when they are needed."""

    class SettingsCommand(click.Command):
        def get_params(self, ctx: click.Context) -> list[click.Parameter]:
            return [*flags_of(kind, env_prefix=ENV_PREFIX), *super().get_params(ctx)]

    return SettingsCommand


def settings_of(kind: type[Settings], flags: Mapping[str, Any]) -> Settings:
    """The settings: flags before the environment before `.env` before defaults.

    Raises click.UsageError that names the flag or variable at fault.
    """
    given = given_values(kind, flags)
    try:
        return kind(**given)
    except ValidationError as error:
        refuse(error, given=given, env_prefix=ENV_PREFIX)
