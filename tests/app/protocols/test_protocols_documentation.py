"""docs/protocols.md does what it says: its blocks are run against a running API, as they stand."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests import children
from tests.app import pictures
from tests.app.compass import publish_compass
from tests.app.conftest import StartApi

PAGE = Path(__file__).resolve().parents[3] / "docs" / "protocols.md"
SERVER = "127.0.0.1:8000"


@pytest.fixture
def server(start_api: StartApi, tmp_path: Path) -> str:
    """Where a server is that has what the page speaks of."""
    api = start_api()
    publish_compass(api.services.registry, "ants-bees")
    (tmp_path / "photo.jpg").write_bytes(pictures.jpeg())
    return f"127.0.0.1:{api.port}"


def blocks(language: str, server: str) -> list[str]:
    text = PAGE.read_text(encoding="utf-8").replace(SERVER, server)
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_python_blocks_print_what_the_page_promises(server: str, tmp_path: Path) -> None:
    script = "\n".join(blocks("python", server))
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}  # the blocks leave closing to the end of the process

    printed = children.run([sys.executable, "-c", script], cwd=tmp_path, env=environment).stdout

    classes, scores, categories = printed.splitlines()
    assert re.fullmatch(r"\[\[b'0\.\d{6}:0:left' b'0\.\d{6}:1:right'\]\]", classes)
    assert scores == "(1, 2) float32 1.0"
    assert categories == "['left', 'right']"


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page's blocks are curl commands")
def test_curl_commands_are_answered(server: str, tmp_path: Path) -> None:
    commands = [line for block in blocks("bash", server) for line in block.splitlines()]

    tensors, as_body, as_form, ping, described = (
        json.loads(children.run([*_words(line)], cwd=tmp_path).stdout) for line in commands
    )

    assert tensors["outputs"][0]["shape"] == [1, 2]
    assert list(as_body) == list(as_form) == ["left", "right"]
    assert ping == {"status": "Healthy"}
    assert described[0]["modelName"] == "ants-bees"


def _words(line: str) -> list[str]:
    return ["bash", "-c", line.replace("curl ", "curl --silent --show-error --fail-with-body ", 1)]
