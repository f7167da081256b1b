"""`make mutants` lists the faults that the tests of a file do not notice."""

from __future__ import annotations

import pytest

from tests.mutants import main, naming_tests

MODULE = "workers/datasets/validation/splits.py"
NOTICED = "tests/datasets/test_splits.py"


def test_fault_that_no_test_notices_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([MODULE, NOTICED]) == 0

    printed = capsys.readouterr().out
    assert "+        labels[image.group][image.label] += 2" in printed  # changes nothing: only the order counts
    assert "fraction <= 1" not in printed  # a test tries 1
    noticed, _, faults = printed.splitlines()[-1].partition(" of ")
    assert int(faults.split()[0]) > 60
    assert int(noticed) == int(faults.split()[0]) - printed.count("survived: ") - printed.count("no tests: ")


def test_tests_are_those_that_name_the_module() -> None:
    assert NOTICED in naming_tests(MODULE)
    assert "tests/datasets/test_coco.py" not in naming_tests(MODULE)


@pytest.mark.parametrize("module", ["workers/nothing.py", "README.md", "workers"])
def test_what_is_no_python_file_is_refused(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([module])
    assert "is no Python file of this repository" in capsys.readouterr().err
