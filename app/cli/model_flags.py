"""Command-line flags from the fields of a pydantic model, so that no setting is declared twice.

Flags carry text. Only given flags are passed on, and the model validates them.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin

import click
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from models.precision import OLDER_SPELLINGS

_METAVARS = {int: "INTEGER", float: "NUMBER", Path: "PATH"}


def flags_of(model: type[BaseModel], *, env_prefix: str | None = None) -> list[click.Option]:
    """One option per field of `model`. With a prefix, the help names the environment variable."""
    return [_flag(name, field, env_prefix) for name, field in model.model_fields.items()]


def flag_name(field: str) -> str:
    """`--home` for `home`, `--redis-url` for `redis_url`."""
    return "--" + field.replace("_", "-")


def given_values(model: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """The given ones of `values` (a command's parameters) that are fields of `model`."""
    return {name: values[name] for name in model.model_fields if values.get(name) is not None}


def refuse(error: ValidationError, *, given: Iterable[str], env_prefix: str | None = None) -> NoReturn:
    """Ends the command and names the flags, or environment variables, with invalid values."""
    lines = []
    for problem in error.errors():
        words = problem["msg"].removeprefix("Value error, ")
        if not problem["loc"]:  # about several fields together
            lines.append(words)
            continue
        field = str(problem["loc"][0])
        by_flag = env_prefix is None or field in given
        name = flag_name(field) if by_flag else f"{env_prefix}{field}".upper()
        lines.append(f"{name} cannot be {problem['input']!r}: {words}")
    raise click.UsageError("\n".join(lines)) from error


class _Choice(click.Choice):  # type: ignore[type-arg] # click 8.1 has no Choice[str]
    """A choice whose older spellings are accepted, but not shown."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(OLDER_SPELLINGS.get(value, value), param, ctx)


def _flag(name: str, field: FieldInfo, env_prefix: str | None) -> click.Option:
    kind = _plain_type(field.annotation)
    words = " ".join(filter(None, [field.description, _notes(name, field, env_prefix)]))
    flag = flag_name(name)
    if kind is bool:
        return click.Option([f"{flag}/--no-{flag[2:]}", name], default=None, help=words)
    if get_origin(kind) is Literal:
        choices = _Choice([str(choice) for choice in get_args(kind)], case_sensitive=False)
        return click.Option([flag, name], type=choices, default=None, help=words)
    return click.Option([flag, name], type=str, metavar=_METAVARS.get(kind, "TEXT"), default=None, help=words)


def _notes(name: str, field: FieldInfo, env_prefix: str | None) -> str:
    notes = []
    if env_prefix is not None:
        notes.append("env: " + f"{env_prefix}{name}".upper())
    if field.default not in (None, (), PydanticUndefined):
        default = field.default
        notes.append(f"default: {('on' if default else 'off') if isinstance(default, bool) else default}")
    return f"[{'; '.join(notes)}]" if notes else ""


def _plain_type(annotation: Any) -> Any:
    """The type without `Annotated` and `| None`; a collection is written as text, with commas."""
    if get_origin(annotation) is Annotated:
        return _plain_type(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return _plain_type(next(part for part in get_args(annotation) if part is not type(None)))
    return annotation
