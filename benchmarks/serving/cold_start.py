"""From the start of the process to its first answer, without and with backends that an earlier run has stored."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.serving.load import closed_loop, run
from benchmarks.serving.servers import FoveaStart, started
from benchmarks.serving.tables import print_table, spread


def measure_cold_start(
    fovea: FoveaStart, model: str, pictures: Sequence[bytes], *, rounds: int, stored_within_s: float, logs: Path
) -> None:
    """Prints the table. The same command each time; only the version's `exports/` differ. Raises Unfit."""
    fresh = replace(fovea, home=fovea.home.parent / "cold-home")
    shutil.copytree(fovea.home, fresh.home)
    exports = exports_of(fresh.home, model)
    without: list[float] = []
    stored: list[float] = []
    for _ in range(rounds):
        shutil.rmtree(exports, ignore_errors=True)
        without.append(_start(fresh, model, pictures, logs))
    has_stored = store_backends(fresh, {model: "classify"}, pictures, within_s=stored_within_s, logs=logs)
    if has_stored:
        stored = [_start(fresh, model, pictures, logs) for _ in range(rounds)]
    print("### Cold start: process start to first answer\n")
    kept = sorted(path.name for path in exports.iterdir()) if has_stored else []
    print_table(
        ["what", "seconds"],
        [
            ("without stored backends", spread(without, 2)),
            (f"with stored backends ({', '.join(kept) or 'none was stored'})", spread(stored, 2)),
        ],
    )
    shutil.rmtree(fresh.home)


def store_backends(
    fovea: FoveaStart, models: Mapping[str, str], pictures: Sequence[bytes], *, within_s: float, logs: Path
) -> bool:
    """Lets a server run, under a little load, until it has stored a backend for every model.

    models: with what each is asked for: classify, detect.
    within_s: gives up after so many seconds; 0 does not try. Returns whether all were stored.
    """
    if not within_s:
        return False
    for model, verb in models.items():
        server = fovea.serving(model, verb=verb)
        with started(server, pictures[0], logs) as running:
            deadline = time.monotonic() + within_s
            while running.child.is_building() or not _is_settled(exports_of(fovea.home, model)):
                if time.monotonic() > deadline:
                    print(f"{model}: no backend was stored within {within_s:.0f} s", file=sys.stderr)
                    return False
                run(closed_loop(running.child.port, server.raw(pictures[:4]), concurrency=1, seconds=0.2))
                time.sleep(1.0)
    return True


def exports_of(home: Path, model: str) -> Path:
    """Where a version keeps what was built from it."""
    return home / "registry" / model / "1" / "exports"


def _is_settled(exports: Path) -> bool:
    """Whether something was built and verified, and nothing is being built. What is written still begins with a dot."""
    return any(exports.glob("[!.]*/report.json")) and not any(exports.glob(".tmp-*"))


def _start(fovea: FoveaStart, model: str, pictures: Sequence[bytes], logs: Path) -> float:
    with started(fovea.serving(model), pictures[0], logs) as running:
        return running.first_answer_s
