"""Runs the tests that a change can break: `python -m tests.changed BASE [PYTEST ARGUMENTS]`, or `make test-changed`.

A test file runs when it, or a module that it uses directly or indirectly, differs from the commit where this branch
left BASE. A module uses what it imports and what its text names: tests start programs (`-m app.cli`), and the product
loads commands by name. A change of a file that is not Python, or is deleted, changes every module that names it.
The contracts always run, because they read the whole repository.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

import grimp
import pytest

from tests import children

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGES: Final = ("app", "benchmarks", "models", "tests", "workers")
CONTRACTS: Final = "tests/contracts"
CHANGES_ALL: Final = {"constraints.txt", "pyproject.toml"}  # they decide which libraries all tests run with
_DOTTED: Final = re.compile(rf"\b(?:{'|'.join(PACKAGES)})(?:\.\w+)+")


def main(base: str, arguments: list[str]) -> int:
    """Runs pytest and returns its exit code."""
    changed = changed_files(base)
    sources = {
        path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }
    files = affected_tests(changed, sources, grimp.build_graph(*PACKAGES, cache_dir=None))
    print(f"{len(changed)} files differ from {base}: {len(files)} test files and the contracts run.", flush=True)
    return int(pytest.main([*arguments, CONTRACTS, *sorted(files)]))


def changed_files(base: str, root: Path = ROOT) -> set[str]:
    """Lists the files that differ from the commit where this branch left `base`, and those that git does not know."""

    def git(*arguments: str) -> list[str]:
        return children.run(["git", *arguments], cwd=root).stdout.splitlines()

    (fork,) = git("merge-base", base, "HEAD")
    return {*git("diff", "--name-only", "--no-renames", fork), *git("ls-files", "--others", "--exclude-standard")}


def affected_tests(changed: Iterable[str], sources: Mapping[str, str], graph: grimp.ImportGraph) -> set[str]:
    """Returns the test files, other than the contracts, that a change to the files `changed` can break.

    sources: the text of every Python file, by its path. graph: their imports; this adds what else they use.
    """
    tests = {
        name for name in sources if PurePosixPath(name).name.startswith("test_") and not name.startswith(CONTRACTS)
    }
    if CHANGES_ALL & set(changed):
        return tests
    _add_named_modules(graph, sources)
    touched = set()
    for name in changed:
        if name in sources:
            touched |= _changed_modules(name, graph)
        else:  # not Python, or deleted
            named = module_of(name) if name.endswith(".py") else PurePosixPath(name).name
            touched |= {module_of(source) for source, text in sources.items() if named in text}
    affected = touched | {user for module in touched for user in graph.find_downstream_modules(module)}
    return {name for name in tests if affected & {module_of(name), *_conftests(name)}}


def module_of(name: str) -> str:
    """Returns the dotted name of a Python file's module."""
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _add_named_modules(graph: grimp.ImportGraph, sources: Mapping[str, str]) -> None:
    """Adds what a text names: a module, or something in it. For a package that is a program, adds its `__main__`."""
    for source, text in sources.items():
        for words in set(_DOTTED.findall(text)):
            parts = words.split(".")
            prefixes = [".".join(parts[:length]) for length in range(len(parts), 1, -1)]
            named = next((prefix for prefix in prefixes if prefix in graph.modules), "")
            for found in (named, f"{named}.__main__"):
                if found in graph.modules and found != module_of(source):
                    graph.add_import(importer=module_of(source), imported=found)


def _changed_modules(name: str, graph: grimp.ImportGraph) -> set[str]:
    """Returns the module of the file; for the `__init__.py` of a package, all modules of the package."""
    module = module_of(name)
    if name.endswith("/__init__.py"):
        return {module, *graph.find_descendants(module)}
    return {module}


def _conftests(test: str) -> set[str]:
    """Returns the modules with the fixtures that pytest gives to a test file."""
    return {module_of(f"{parent}/conftest.py") for parent in PurePosixPath(test).parents}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
