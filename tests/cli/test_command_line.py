"""The command line itself: what it loads, what it refuses, how it exits."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from app.cli import COMMANDS, cli
from app.cli.output import pace_of
from app.processes.address import free_port
from tests import children

HEAVY = {"torch", "torchvision", "fastapi", "starlette", "celery", "redis", "uvicorn", "matplotlib", "sklearn", "numpy"}
CLIENT_COMMANDS = [
    ["datasets", "list"],
    ["datasets", "show", "ants-bees"],
    ["jobs", "list"],
    ["jobs", "show", "job-1"],
    ["jobs", "watch", "job-1"],
    ["models", "list"],
    ["models", "show", "ants-bees/1"],
    ["architectures"],
    ["system"],
]


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(
        cli, arguments, env={"FOVEA_URL": None, "FOVEA_HOST": None, "FOVEA_PORT": None, **(env or {})}
    )


def modules_after(code: str) -> set[str]:
    printed = children.run([sys.executable, "-c", f"{code}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"])
    return set(json.loads(printed.stdout.splitlines()[-1]))


def test_help_loads_click_and_nothing_heavier() -> None:
    code = "from app.cli import cli\ntry: cli(['--help'])\nexcept SystemExit: pass"

    loaded = modules_after(code)

    assert "click" in loaded
    assert not loaded & (HEAVY | {"httpx", "pydantic", "rich", "asyncio"})


def test_help_of_the_commands_loads_no_framework() -> None:
    code = f"""from app.cli import cli
for command in {list(COMMANDS)!r}:
    try: cli([command, '--help'])
    except SystemExit: pass"""

    assert not modules_after(code) & HEAVY


def test_client_modules_load_no_framework() -> None:
    assert not modules_after("import app.client, app.cli, app.schemas, app.processes") & HEAVY


@pytest.mark.parametrize("command", COMMANDS)
def test_line_in_the_help_is_the_commands_own(command: str) -> None:
    own = cli.get_command(click.Context(cli), command)

    assert own is not None
    assert own.help is not None
    assert own.help.startswith(COMMANDS[command][1])


def test_help_tells_the_exit_codes() -> None:
    assert "130 Ctrl-C" in run("--help").output


def test_mistyped_command_is_wrong_usage() -> None:
    result = run("clasify")

    assert result.exit_code == 2
    assert "No such command" in result.stderr


@pytest.mark.parametrize("command", CLIENT_COMMANDS, ids=" ".join)
def test_no_server_there_exits_with_3_and_nothing_on_stdout(command: list[str]) -> None:
    result = run(*command, "--url", f"http://127.0.0.1:{free_port()}")

    assert result.exit_code == 3
    assert result.stdout == ""
    assert "fovea up" in result.stderr


def test_address_comes_from_the_environment() -> None:
    port = free_port()

    result = run("system", env={"FOVEA_HOST": "127.0.0.1", "FOVEA_PORT": str(port)})

    assert f"http://127.0.0.1:{port}" in result.stderr


def test_url_in_the_environment_goes_before_host_and_port() -> None:
    result = run("system", env={"FOVEA_URL": "nonsense", "FOVEA_PORT": "9"})

    assert "'nonsense' is not a valid server address" in result.stderr


def test_port_in_the_environment_that_is_none_is_wrong_usage() -> None:
    result = run("system", env={"FOVEA_PORT": "many"})

    assert result.exit_code == 2
    assert "FOVEA_PORT cannot be 'many'" in result.stderr


@pytest.mark.parametrize("reference", ["ants-bees/", "ants-bees/zero", "ants-bees/0", "ants-bees/-1"])
def test_version_that_is_none_is_wrong_usage(reference: str) -> None:
    result = run("models", "show", reference)

    assert result.exit_code == 2
    assert "write it as ants-bees/3" in result.stderr


def test_promotion_without_a_version_is_wrong_usage() -> None:
    result = run("models", "promote", "ants-bees")

    assert result.exit_code == 2
    assert "needs a version" in result.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--epochs", "0"], "--epochs cannot be '0'"),
        (["--learning-rate", "nan"], "--learning-rate cannot be 'nan'"),
        (["--batch-size", "many"], "--batch-size cannot be 'many'"),
        (["--optimizer", "lion"], "'lion' is not one of 'sgd', 'adamw'"),
    ],
)
def test_hyperparameter_out_of_range_is_refused_before_anything_is_sent(flags: list[str], words: str) -> None:
    result = run("train", "--dataset", "ants-bees", "--model", "resnet18", *flags)

    assert result.exit_code == 2
    assert words in result.stderr


def test_training_on_nothing_is_wrong_usage() -> None:
    result = run("train", "--model", "resnet18")

    assert result.exit_code == 2
    assert "IMAGES" in result.stderr


def test_training_without_a_model_is_wrong_usage() -> None:
    result = run("train", "--dataset", "ants-bees")

    assert result.exit_code == 2
    assert "--model" in result.stderr


def test_uploading_an_empty_directory_is_wrong_usage(tmp_path: Path) -> None:
    result = run("datasets", "upload", str(tmp_path), "--name", "nothing")

    assert result.exit_code == 2
    assert "no files" in result.stderr


def test_manifest_that_is_none_names_what_is_missing(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_text('{"architecture": "resnet18"}')

    result = run("models", "upload", "m", str(manifest), "--manifest", str(manifest))

    assert result.exit_code == 2
    assert "categories: Field required" in result.stderr


@pytest.mark.parametrize("command", CLIENT_COMMANDS, ids=" ".join)
def test_url_before_the_command_is_that_of_the_command(command: list[str]) -> None:
    port = free_port()
    result = run("--url", f"http://127.0.0.1:{port}", *command)
    assert result.exit_code == 3
    assert f"127.0.0.1:{port}" in result.stderr


def test_url_behind_the_command_wins() -> None:
    port = free_port()
    result = run("--url", "http://127.0.0.1:1", "jobs", "list", "--url", f"http://127.0.0.1:{port}")
    assert f"127.0.0.1:{port}" in result.stderr


@pytest.mark.parametrize(
    ("images_per_s", "words"),
    [
        (0.25, "4.0 s/image"),
        (0.01, "100.0 s/image"),
        (1.0, "1.0 images/s"),
        (1.5, "1.5 images/s"),
        (85.4, "85 images/s"),
    ],
)
def test_pace_has_the_unit_that_shows_it(images_per_s: float, words: str) -> None:
    assert pace_of(images_per_s) == words
