"""`make test-changed` runs the tests that a change can break."""

from __future__ import annotations

import shutil
from pathlib import Path

import grimp
import pytest

from tests.changed import affected_tests, changed_files
from tests.children import run

SOURCES = {
    "models/__init__.py": "",
    "models/precision.py": "",
    "models/fonts.py": "",
    "app/cli/__init__.py": 'COMMANDS = {"train": "app.cli.train:train"}',
    "app/cli/__main__.py": "",
    "app/cli/train.py": "",
    "app/start.py": 'PAGE, LOADED = "start.html", "models.gone"',
    "tests/conftest.py": "",
    "tests/app/conftest.py": "",
    "tests/app/test_start.py": "",
    "tests/cli/test_commands.py": 'COMMAND = "-m app.cli"',
    "tests/contracts/test_imports.py": "",
    "tests/models/test_precision.py": 'PATCHED = "models.fonts.FOUND"',
}


@pytest.fixture
def graph() -> grimp.ImportGraph:
    """The imports of SOURCES."""
    graph = grimp.ImportGraph()
    for name in SOURCES:
        graph.add_module(name.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    graph.add_import(importer="app.cli.train", imported="models.precision")
    graph.add_import(importer="app.cli.__main__", imported="app.cli")
    graph.add_import(importer="tests.app.test_start", imported="app.start")
    graph.add_import(importer="tests.app.conftest", imported="app.start")
    graph.add_import(importer="tests.models.test_precision", imported="models.precision")
    return graph


@pytest.mark.parametrize(
    ("changed", "tests"),
    [
        ("models/precision.py", {"tests/models/test_precision.py", "tests/cli/test_commands.py"}),
        ("models/fonts.py", {"tests/models/test_precision.py"}),  # a patch names it
        ("models/__init__.py", {"tests/models/test_precision.py", "tests/cli/test_commands.py"}),
        ("app/cli/train.py", {"tests/cli/test_commands.py"}),  # a program loads it by name
        ("app/start.py", {"tests/app/test_start.py"}),
        ("app/pages/start.html", {"tests/app/test_start.py"}),
        ("tests/app/conftest.py", {"tests/app/test_start.py"}),
        ("tests/models/test_precision.py", {"tests/models/test_precision.py"}),
        ("models/gone.py", {"tests/app/test_start.py"}),  # deleted, and app/start.py still names it
        ("docs/tour.md", set()),
        ("tests/contracts/test_imports.py", set()),  # the contracts run anyway
    ],
)
def test_tests_of_a_change_are_those_that_use_it(graph: grimp.ImportGraph, changed: str, tests: set[str]) -> None:
    assert affected_tests([changed], SOURCES, graph) == tests


def test_other_libraries_can_break_every_test(graph: grimp.ImportGraph) -> None:
    everything = {name for name in SOURCES if "/test_" in name} - {"tests/contracts/test_imports.py"}
    assert affected_tests(["constraints.txt"], SOURCES, graph) == everything


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_changed_files_are_committed_edited_deleted_or_new(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        run(["git", "-c", "user.name=Nobody", "-c", "user.email=nobody@localhost", *arguments], cwd=tmp_path)

    git("init", "--initial-branch", "main")
    for name in ("same", "edited", "deleted", "committed"):
        (tmp_path / name).write_text("one\n")
    git("add", ".")
    git("commit", "--message", "one")
    git("checkout", "-b", "branch")
    (tmp_path / "committed").write_text("two\n")
    git("commit", "--all", "--message", "two")
    (tmp_path / "edited").write_text("two\n")
    (tmp_path / "deleted").unlink()
    (tmp_path / "new").touch()

    assert changed_files("main", tmp_path) == {"committed", "edited", "deleted", "new"}
    assert changed_files("HEAD", tmp_path) == {"edited", "deleted", "new"}
