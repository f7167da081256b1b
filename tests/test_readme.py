"""The README's blocks do what they say: `bash` and `python` ones are run against a real server, as they stand."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from app.client import Client
from tests import children
from tests.cli.pictures import write_pictures
from tests.cli.real_stack import real_stack

README = Path(__file__).resolve().parents[1] / "README.md"
SERVER = "http://127.0.0.1:8000"


def blocks(language: str) -> list[str]:
    """The README's code blocks in that language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_both_commands_are_there() -> None:
    commands = "".join(blocks("console"))
    assert "make demo" in commands
    assert "make test" in commands


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README's blocks are curl commands")
def test_every_block_runs_in_order(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures")
    with zipfile.ZipFile(tmp_path / "ants-bees.zip", "w") as archive:
        for picture in sorted(pictures.rglob("*.png")):
            archive.write(picture, picture.relative_to(pictures))
    shutil.copy(next(pictures.rglob("*.png")), tmp_path / "photo.jpg")
    with real_stack(tmp_path / "home", output=tmp_path / "up.log") as stack:
        url = stack.wait_until_ready()
        upload, train, show, ask = (block.replace(SERVER, url) for block in blocks("bash"))
        assert json.loads(run(upload, tmp_path))["version"] == 1
        submit, _, watch = train.partition("curl -N")
        job = json.loads(run(submit, tmp_path))
        seen = run(f"curl -N{watch}", tmp_path, JOB=job["id"])
        assert '"status":"succeeded"' in seen
        assert json.loads(run(show, tmp_path))["aliases"] == {"production": 1}
        assert '"classes":[{"label":"' in run(ask, tmp_path)
        assert (tmp_path / "annotated.jpg").read_bytes().startswith(b"\xff\xd8")
        (script,) = (block.replace(SERVER, url) for block in blocks("python"))
        assert re.match(r"(bright|dark) 0\.\d+\n", python(script, tmp_path))
        with Client(url) as client:
            assert client.jobs.get(job["id"]).attempt == 1


def run(script: str, directory: Path, **variables: str) -> str:
    """What a shell prints that stops at the first failure; curl fails on an error status."""
    strict = 'set -e; curl() { command curl --silent --show-error --fail-with-body "$@"; }\n'
    command, environment = ["bash", "-c", strict + script], {**os.environ, **variables}
    answer = children.run(command, check=False, cwd=directory, env=environment)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def python(script: str, directory: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(README.parent)}
    return children.run([sys.executable, "-c", script], cwd=directory, env=environment).stdout
