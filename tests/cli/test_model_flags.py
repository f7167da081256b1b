"""Flags made of settings: every field has one, and flags win over the environment."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from pydantic_settings import BaseSettings

from app.cli.model_flags import flag_name, flags_of
from app.cli.settings_command import settings_command, settings_of
from app.settings import ApiSettings
from workers.configs.fine_tune import Hyperparameters
from workers.settings import WorkerSettings


def run(
    kind: type[WorkerSettings], *arguments: str, env: dict[str, str] | None = None
) -> tuple[Result, list[WorkerSettings]]:
    made: list[WorkerSettings] = []

    @click.command(cls=settings_command(kind))
    def command(**flags: object) -> None:
        made.append(settings_of(kind, flags))

    return CliRunner().invoke(command, arguments, env=env or {}), made


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for field in ApiSettings.model_fields:
        monkeypatch.delenv(f"FOVEA_{field}".upper(), raising=False)


@pytest.mark.parametrize("kind", [ApiSettings, WorkerSettings])
def test_every_setting_has_a_flag_and_its_variable_in_the_help(kind: type[BaseSettings]) -> None:
    assert issubclass(kind, WorkerSettings)
    result, _ = run(kind, "--help")

    words = " ".join(result.output.split())
    for field in kind.model_fields:
        assert flag_name(field) in words
        assert f"FOVEA_{field}".upper() in words


def test_nothing_said_gives_the_defaults() -> None:
    _, (made,) = run(ApiSettings)

    assert made == ApiSettings.model_construct()
    assert not made.model_fields_set


def test_flag_goes_before_the_environment_and_that_before_the_file() -> None:
    Path(".env").write_text("FOVEA_PORT=1001\nFOVEA_HOME=from-file\nFOVEA_DEVICE=cuda\n")

    _, (made,) = run(ApiSettings, "--port", "1003", env={"FOVEA_PORT": "1002", "FOVEA_HOME": "from-environment"})

    assert isinstance(made, ApiSettings)
    assert (made.port, made.home, made.device) == (1003, Path("from-environment"), "cuda")


@pytest.mark.parametrize(("flag", "is_offline"), [("--offline", True), ("--no-offline", False)])
def test_switch_has_an_opposite(flag: str, is_offline: bool) -> None:
    _, (made,) = run(WorkerSettings, flag, env={"FOVEA_OFFLINE": str(not is_offline)})

    assert made.offline is is_offline


def test_list_is_written_with_commas() -> None:
    _, (made,) = run(ApiSettings, "--preload", "ants-bees,digits")

    assert isinstance(made, ApiSettings)
    assert made.preload == ("ants-bees", "digits")


@pytest.mark.parametrize(
    ("arguments", "env", "words"),
    [
        (["--port", "70000"], {}, "--port cannot be '70000'"),
        ([], {"FOVEA_PORT": "70000"}, "FOVEA_PORT cannot be '70000'"),
        (["--device", "abacus"], {}, "--device cannot be 'abacus'"),
        (["--max-pending-images", "1"], {}, "Raise the second"),
    ],
)
def test_value_that_makes_no_sense_is_wrong_usage_and_named(
    arguments: list[str], env: dict[str, str], words: str
) -> None:
    result, _ = run(ApiSettings, *arguments, env=env)

    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.parametrize(("given", "read"), [("float32", "float32"), ("fp32", "float32"), ("bf16", "bfloat16")])
def test_precision_flag_takes_the_older_spelling_and_shows_todays(given: str, read: str) -> None:
    (precision,) = (flag for flag in flags_of(Hyperparameters) if flag.name == "precision")

    assert precision.type.convert(given, precision, None) == read
    assert isinstance(precision.type, click.Choice)
    assert list(precision.type.choices) == ["auto", "float32", "bfloat16"]
