"""Puts small faults into a file, and lists those that no test notices: `make mutants MODULE=workers/training/order.py`.

mutmut (BSD) makes one fault at a time, for instance `<` for `<=`, and runs the tests that reach the function. It works
in a copy of the repository, so the sources stay as they are. A fault that survives means that a test is missing, or
that the code does not matter.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests import children
from tests.changed import PACKAGES, module_of

ROOT: Final = Path(__file__).resolve().parents[1]
MUTMUT: Final = (sys.executable, "-m", "mutmut")
SETTINGS: Final = """\
[mutmut]
source_paths =
    app
    models
    workers
only_mutate =
    {module}
also_copy =
    {others}
# A process that only imports, and forks for every fault: PyTorch's threads do not survive a fork.
process_isolation = forkserver
pytest_add_cli_args =
    -p
    no:randomly
pytest_add_cli_args_test_selection =
    {tests}
"""


def main(arguments: Sequence[str]) -> int:
    """Prints each fault that survived, as a diff. Returns 0, or 2 if the tests could not be run."""
    parser = argparse.ArgumentParser(prog="make mutants", description="Lists the faults that no test notices.")
    parser.add_argument("module", type=Path, help="the file to put faults into, for instance workers/training/order.py")
    parser.add_argument("tests", nargs="*", help="the test files to run; left out: those that name the module")
    given = parser.parse_args(arguments)
    if given.module.suffix != ".py" or not (ROOT / given.module).is_file():
        parser.error(f"{given.module} is no Python file of this repository")
    tests = given.tests or naming_tests(given.module.as_posix())
    if not tests:
        parser.error(f"no test file names {module_of(given.module.as_posix())}: give the test files to run")
    with copied_repository() as copy:
        write_settings(copy, given.module, tests)
        with children.child([*MUTMUT, "run"], cwd=copy, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            printed, _ = process.communicate()
        if process.returncode:
            print(printed.decode(errors="replace").rpartition("\r")[2][-4000:], file=sys.stderr)
            return 2
        print_survivors(copy)
        return 0


def naming_tests(module: str) -> list[str]:
    """Returns the test files that import the module of this file, or name it."""
    dotted = module_of(module)
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [path.relative_to(ROOT).as_posix() for path in files if dotted in path.read_text("utf-8")]


@contextmanager
def copied_repository() -> Iterator[Path]:
    """A copy of all files that git knows or would add, removed at the end of the block."""
    listed = children.run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT).stdout
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        for name in listed.splitlines():
            if (ROOT / name).is_file():
                (Path(directory) / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, Path(directory) / name)
        yield Path(directory)


def write_settings(copy: Path, module: Path, tests: Sequence[str]) -> None:
    """Writes the configuration of mutmut into the copy."""
    others = sorted(path.name for path in copy.iterdir() if path.name not in (*PACKAGES, "setup.cfg"))
    lists = {"others": [*others, "benchmarks"], "tests": tests}
    texts = {name: "\n    ".join(lines) for name, lines in lists.items()}
    (copy / "setup.cfg").write_text(SETTINGS.format(module=module.as_posix(), **texts))


def print_survivors(copy: Path) -> None:
    """Prints the faults that no test noticed, and how many were noticed."""
    results = [line.strip().rpartition(": ") for line in mutmut(copy, "results", "--all", "true").splitlines()]
    outcomes = [(name, outcome) for name, _, outcome in results if name]
    survivors = [(name, outcome) for name, outcome in outcomes if outcome in ("survived", "no tests")]
    for name, outcome in survivors:
        print(f"{outcome}: {name}")
        print("\n".join(line for line in mutmut(copy, "show", name).splitlines() if line[:1] in "+-@ " and line))
        print()
    print(f"{len(outcomes) - len(survivors)} of {len(outcomes)} faults were noticed.")


def mutmut(copy: Path, *arguments: str) -> str:
    """Runs a command of mutmut in the copy and returns what it prints."""
    return children.run([*MUTMUT, *arguments], cwd=copy).stdout


if __name__ == "__main__":
    os.environ.pop("PYTEST_ADDOPTS", None)
    sys.exit(main(sys.argv[1:]))
