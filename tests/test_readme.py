"""The README's blocks do what they say: `bash` and `python` ones are run against a real server, as they stand."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests import children
from tests.cli.real_stack import real_stack

README = Path(__file__).resolve().parents[1] / "README.md"
SERVER = "http://127.0.0.1:8000"
LARGEST_IMAGE_BYTES = 300_000
_MARK = "== the next block =="


def blocks() -> list[tuple[str, str]]:
    """Returns the language and text of each code block of the README, in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_both_commands_are_there() -> None:
    commands = "".join(text for language, text in blocks() if language == "console")
    assert "make demo" in commands
    assert "make test" in commands


def test_links_and_images_are_there_and_images_are_small() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text(encoding="utf-8"))
    assert [link for link in links if not (README.parent / link).is_file()] == []
    images = [README.parent / link for link in links if link.endswith((".jpg", ".png"))]
    assert len(images) == 2
    assert all(image.stat().st_size < LARGEST_IMAGE_BYTES for image in images)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README's blocks are curl commands")
def test_every_block_runs_in_order(tmp_path: Path) -> None:
    with real_stack(tmp_path / "home", output=tmp_path / "up.log") as stack:
        url = stack.wait_until_ready()
        posted, trained, asked, by_python, by_commands = run_all(tmp_path, url)
    assert json.loads(posted.splitlines()[-1])["version"] == 1
    assert '"status":"succeeded"' in trained
    assert '"classes":[{"label":"' in asked
    assert (tmp_path / "answer.png").read_bytes().startswith(b"\x89PNG")
    scores = [float(score) for score in re.findall(r"^\d ([01]\.\d{3})$", by_python, re.MULTILINE)]
    assert len(scores) == 2
    assert 1 >= scores[0] >= scores[1] >= 0
    assert "production" in by_commands
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 10


def run_all(directory: Path, url: str) -> list[str]:
    """Runs the blocks in one shell, which stops at the first failure. Returns what each block prints."""
    (directory / "bin").mkdir()
    for name, command in {"fovea": "-m app.cli", "python3": ""}.items():
        (directory / "bin" / name).write_text(f'#!/bin/sh\nexec {sys.executable} {command} "$@"\n')
        (directory / "bin" / name).chmod(0o755)
    script = 'set -e -o pipefail; curl() { command curl --silent --show-error --fail-with-body "$@"; }\n'
    for language, text in blocks():
        if language in ("bash", "python"):
            here = text if language == "bash" else f"python3 - <<'END'\n{text}END\n"
            script += f"{here.replace(SERVER, url)}\necho; echo '{_MARK}'\n"
    environment = {
        **os.environ,
        "PATH": f"{directory / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(README.parent),
        "FOVEA_URL": url,
    }
    answer = children.run(["bash", "-c", script], check=False, cwd=directory, env=environment)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout.split(f"\n{_MARK}\n")[:-1]
