"""`fovea` in this process."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner, Result

from app.cli import cli


def fovea(server: str, *arguments: object) -> Result:
    """The command with these arguments, against the server at that address."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], env={"FOVEA_URL": server})


def as_json(server: str, *arguments: object) -> Any:
    """What it prints with `--json`."""
    result = fovea(server, *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)
