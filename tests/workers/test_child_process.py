"""Child processes run the code of their parent, and end with their parent."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import models
from tests import children
from workers.supervision.child_process import code_environment


def test_child_runs_this_code_wherever_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for directory in (here, elsewhere):
        (directory / "models").mkdir(parents=True)
        (directory / "models" / "__init__.py").touch()
    (elsewhere / "only_there.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(elsewhere))

    code = "import models, only_there; print(models.__file__)"
    child = children.run([sys.executable, "-c", code], cwd=here, env=code_environment())

    assert child.stdout.strip() == models.__file__


@pytest.mark.parametrize(("given", "seen"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_idle_threads_of_a_child_sleep_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, given: str | None, seen: str
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    assert code_environment()["OMP_WAIT_POLICY"] == seen


def test_process_whose_parent_is_gone_is_told_so() -> None:
    code = (
        "from workers.supervision.child_process import die_with\n"
        "import os\n"
        "print(die_with(os.getppid()), die_with(os.getppid() + 1))"
    )
    child = children.run([sys.executable, "-c", code], env=code_environment())

    assert child.stdout.split() == ["True", "False"]
