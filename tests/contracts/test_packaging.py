"""The wheel has every file that the code reads, and `pyproject.toml` names none that is not there."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_package_data_is_every_file_that_is_no_python() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    packages = ("app", "models", "workers")
    there = {
        path.relative_to(ROOT).as_posix()
        for package in packages
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    patterns = [(package, pattern) for package, some in settings["package-data"].items() for pattern in some]
    matched = {
        pattern: {path.relative_to(ROOT).as_posix() for path in (ROOT / package).glob(pattern)}
        for package, pattern in patterns
    }

    assert all(matched.values()), "a pattern that matches no file"
    assert set().union(*matched.values()) == there
