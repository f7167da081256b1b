"""The output of commands: tables for people, JSON for programs. Results go to stdout, all else to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import IO

import click
from pydantic import BaseModel
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

json_option = click.option("--json", "as_json", is_flag=True, help="Print only JSON on stdout.")

_WIDTH_OF_A_PIPE = 200
_UNITS = ("B", "kB", "MB", "GB", "TB")


def console(file: IO[str] | None = None) -> Console:
    """A console on `file` (stdout), wide enough that nothing is cut in a pipe."""
    file = file or sys.stdout
    return Console(file=file, highlight=False, width=None if file.isatty() else _WIDTH_OF_A_PIPE)


def print_json(value: BaseModel | Sequence[BaseModel]) -> None:
    """Prints one JSON document."""
    if isinstance(value, BaseModel):
        click.echo(value.model_dump_json(indent=2))
    else:
        click.echo(json.dumps([item.model_dump(mode="json") for item in value], indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Prints a table. Columns whose name begins with `>` are right-aligned. empty: printed if there are no rows."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    for row in rows:
        table.add_row(*(text(cell) for cell in row))
    if table.row_count:
        console().print(table)
    else:
        click.echo(empty, err=True)


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Prints names and values below each other, without values that are None."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts:
        if value is not None:
            table.add_row(name, text(value))
    console().print(table)


def text(value: object) -> Text:
    """`value` as text, in which foreign data is neither markup nor a control code of the terminal."""
    match value:
        case Text():
            return value
        case None:
            words = "-"
        case bool():
            words = "yes" if value else "no"
        case float():
            words = f"{value:.4g}"
        case datetime():
            words = value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        case _:
            words = str(value)
    return Text("".join(sign if sign.isprintable() or sign == "\n" else "\N{REPLACEMENT CHARACTER}" for sign in words))


def size(bytes_: float) -> str:
    """`12.3 MB`."""
    for unit in _UNITS:
        if bytes_ < 1000 or unit == _UNITS[-1]:
            return f"{bytes_:.0f} {unit}" if unit == "B" else f"{bytes_:.1f} {unit}"
        bytes_ /= 1000
    raise AssertionError("unreachable: the last unit takes everything")


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 07 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def metrics(values: dict[str, float]) -> str:
    """`val/loss 0.0880  val/top1 0.9731`."""
    return "  ".join(f"{name} {value:.4f}" for name, value in sorted(values.items()))


def pace_of(images_per_s: float) -> str:
    """The pace in words: `12 images/s`, `1.5 images/s`, and below one image per second `4.0 s/image`."""
    if images_per_s < 1:
        return f"{1 / images_per_s:.1f} s/image"
    return f"{images_per_s:.0f} images/s" if images_per_s >= 10 else f"{images_per_s:.1f} images/s"
