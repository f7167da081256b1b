"""The same work without HTTP: what no server on this machine can beat.

Every backend, in batches of 1, 4 and 8, as one single-threaded process per core and as threads of one process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from benchmarks.serving.home import CATEGORIES
from benchmarks.serving.machine import cores
from benchmarks.serving.peer_environment import QUIET, ROOT
from benchmarks.serving.processes import Unfit
from benchmarks.serving.tables import median, print_table, spread

BACKENDS: Final = ("channels_last", "compile", "openvino")  # of `networks`; plain eager is slower than its first
BATCHES: Final = (1, 4, 8)
Style = Literal["processes", "threads"]
_ENDS_WITHIN_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Loop:
    """One way to use all cores."""

    backend: str
    style: Style
    batch: int

    def __str__(self) -> str:
        how = "one process per core" if self.style == "processes" else "threads in one process"
        return f"{self.backend}, batches of {self.batch}, {how}"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What the loops work on. python: has every backend. images: a directory."""

    python: Path
    pictures: Path
    architecture: str
    weights: Path


class Bare:
    """Processes that do the work when they are told. See `bare`."""

    def __init__(self, children: Sequence[subprocess.Popen[str]]) -> None:
        self._children = children

    def work(self, *, seconds: float, batch: int) -> tuple[float, list[float]]:
        """Images per second of all together, and milliseconds of every batch. Raises Unfit if one has ended."""
        for child in self._children:
            assert child.stdin is not None
            child.stdin.write(json.dumps({"seconds": seconds, "batch": batch}) + "\n")
            child.stdin.flush()
        answers = [_answer(child) for child in self._children]
        return (
            sum(answer["images_per_second"] for answer in answers),
            [latency for answer in answers for latency in answer["latencies_ms"]],
        )


@contextmanager
def bare(
    bench: Bench, backend: str, *, processes: int, workers: int, intra_threads: int, batches: Sequence[int] = BATCHES
) -> Iterator[Bare]:
    """Raises Unfit if the backend cannot be had here."""
    command = [str(bench.python), "-m", "benchmarks.serving.bare", "--backend", backend]
    command += ["--architecture", bench.architecture, "--weights", str(bench.weights)]
    command += ["--pictures", str(bench.pictures), "--categories", str(CATEGORIES)]
    command += ["--workers", str(workers), "--intra-threads", str(intra_threads), "--batches", *map(str, batches)]
    threads = str(intra_threads)
    env = {**os.environ, **QUIET, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    with ExitStack() as stack:
        children = []
        for _ in range(processes):  # one after the other: what the first compiles, the next ones find
            children.append(stack.enter_context(_child(command, env)))
            answer = _answer(children[-1])
            if "unavailable" in answer:
                raise Unfit(f"{backend}: {answer['unavailable']}")
        yield Bare(children)


@contextmanager
def _child(command: Sequence[str], env: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield child
    finally:
        assert child.stdin is not None
        child.stdin.close()
        try:
            child.wait(timeout=_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _answer(child: subprocess.Popen[str]) -> dict[str, Any]:
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("{"):  # a library may have its say too
            answer: dict[str, Any] = json.loads(line)
            return answer
    raise Unfit(f"the loop ended with {child.wait()}")


@contextmanager
def loop_on_all_cores(bench: Bench, backend: str, style: Style) -> Iterator[Bare]:
    """Raises Unfit."""
    processes, workers = (cores(), 1) if style == "processes" else (1, cores())
    with bare(bench, backend, processes=processes, workers=workers, intra_threads=1) as ready:
        yield ready


def find_fastest(bench: Bench, *, seconds: float, rounds: int) -> Loop:
    """Measures every loop, prints them, returns the fastest. Raises Unfit if none works."""
    rates: dict[Loop, list[float]] = {}
    absent: list[str] = []
    for backend in BACKENDS:
        for style in ("processes", "threads"):
            try:
                with loop_on_all_cores(bench, backend, style) as ready:
                    for number in range(rounds):
                        for batch in BATCHES if number % 2 else reversed(BATCHES):
                            rate, _ = ready.work(seconds=seconds, batch=batch)
                            loop = Loop(backend=backend, style=style, batch=batch)
                            rates.setdefault(loop, []).append(rate)
            except Unfit as error:
                absent.append(str(error))
        print(f"{backend}: done", file=sys.stderr, flush=True)
    ranked = sorted(rates, key=lambda loop: median(rates[loop]), reverse=True)
    print(f"### Without HTTP: {bench.architecture}, JPEG to five best categories, all cores\n")
    print_table(["loop", "images/s"], [(str(loop), spread(rates[loop])) for loop in ranked])
    for reason in dict.fromkeys(absent):
        print(f"Left out: {reason}\n")
    if not ranked:
        raise Unfit("; ".join(absent))
    return ranked[0]
