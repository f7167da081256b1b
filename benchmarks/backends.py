"""`python -m benchmarks.backends`: eager float32, OpenVINO and its int8, side by side in one process.

For each architecture, with random weights: ms per image at batches of 1, 4 and 8, medians of rounds in turn, as
wall clock and as processor time (on a machine that does other things too, only the second says something); then what
two threads get at once, and how long another thread is kept waiting.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.architectures.catalog import build, get_architecture
from models.backends.backend import Backend
from models.backends.compiler import BuildRequest, Compiler
from models.backends.eager import EagerBackend
from models.backends.graphs import ClassificationGraph
from models.backends.machine import best_precision
from models.backends.openvino import OpenVino
from models.backends.openvino_int8 import OpenVinoInt8
from models.backends.verification import BATCHES, compare
from models.backends.views import natural_views
from models.precision import Precision

_CPU = torch.device("cpu")
_EXAMPLES = 32  # made-up images do for measuring int8

Run = Callable[[Tensor], Any]


def main() -> None:
    """Reads the command line, builds, measures, prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backends", description=__doc__.splitlines()[0])
    parser.add_argument("--architectures", nargs="+", default=["resnet18", "resnet50"])
    parser.add_argument("--threads", type=int, default=1, help="of one batch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precision", choices=["auto", "float32"], default="auto", help="of what is not int8")
    options = parser.parse_args()
    precision = best_precision(_CPU) if options.precision == "auto" else "float32"
    torch.set_num_threads(options.threads)
    load = ", ".join(f"{part:.1f}" for part in os.getloadavg())
    capability = torch.backends.cpu.get_cpu_capability()
    print(f"torch {torch.__version__}, {capability}, {options.threads} thread(s), {precision}")
    print(f"{os.cpu_count()} cores, load average at the start {load}\n")
    for name in options.architectures:
        with tempfile.TemporaryDirectory() as directory:
            _measure(name, Path(directory), options.rounds, precision)


def _measure(name: str, directory: Path, rounds: int, precision: Precision) -> None:
    architecture = get_architecture(name)
    preset = architecture.preset
    torch.manual_seed(0)
    module = build(name, num_categories=1000).eval()
    eager = EagerBackend(ClassificationGraph(module, preset), "cpu")
    views = natural_views(preset, max(BATCHES))
    backends: dict[str, Backend] = {"eager": eager}
    for compiler in (OpenVino(), OpenVinoInt8()):
        own = precision if precision in compiler.precisions else "int8"
        key = f"{compiler.name} {own}"
        reason = compiler.why_not(_CPU)
        if reason:
            print(f"{name}: no {key}: {reason}")
            continue
        backends[key] = _built(compiler, eager, directory / key, own)
        agreement = compare("classification", eager, backends[key], views, source="generated")
        print(f"{name}: {key}: largest score difference {agreement.largest_score_difference:.1e}")
    runs: dict[str, Run] = {key: backend.run for key, backend in backends.items()}
    header = " | ".join(f"batch {size}: wall | processor" for size in BATCHES)
    print(f"\n| {name}, ms per image | {header} |\n|{'---|' * (1 + 2 * len(BATCHES))}")
    times = {size: _times(runs, torch.stack(views[:size]), rounds) for size in BATCHES}
    for key in runs:
        print(f"| {key} | " + " | ".join(" | ".join(f"{ms:.1f}" for ms in times[size][key]) for size in BATCHES) + " |")
    batch = torch.stack(views[:4])
    print(f"\n| {name}, batches of 4 | 1 thread | 2 threads | another thread waits at most |\n|---|---|---|---|")
    for key, run in runs.items():
        one, two = (_images_per_s(run, batch, callers, rounds) for callers in (1, 2))
        print(f"| {key} | {one:.1f} images/s | {two:.1f} images/s | {_longest_wait_ms(run, batch):.0f} ms |")
    print()


def _built(compiler: Compiler, eager: EagerBackend, directory: Path, precision: Precision) -> Backend:
    directory.mkdir()
    began = time.monotonic()
    examples = natural_views(eager.graph.preset, _EXAMPLES, seed=1)
    request = BuildRequest(eager=eager, directory=directory, precision=precision, examples=examples)
    compiler.build(request)
    print(f"built with {compiler.name} in {precision} in {time.monotonic() - began:.0f} s", flush=True)
    return compiler.load(request)


def _times(runs: dict[str, Run], batch: Tensor, rounds: int) -> dict[str, tuple[float, float]]:
    """Wall clock and processor time of each, ms per image."""
    taken: dict[str, list[tuple[float, float]]] = {key: [] for key in runs}
    for number in range(rounds + 1):
        for key, run in runs.items():
            wall, processor = time.perf_counter(), time.process_time()
            run(batch)
            if number:  # the first round warms up
                taken[key].append((time.perf_counter() - wall, time.process_time() - processor))
    each = 1000 / len(batch)
    return {
        key: (each * statistics.median(wall for wall, _ in pairs), each * statistics.median(cpu for _, cpu in pairs))
        for key, pairs in taken.items()
    }


def _images_per_s(run: Run, batch: Tensor, callers: int, rounds: int) -> float:
    def work() -> None:
        for _ in range(rounds):
            run(batch)

    return callers * rounds * len(batch) / _seconds([work] * callers)


def _seconds(works: Sequence[Callable[[], None]]) -> float:
    threads = [threading.Thread(target=work) for work in works]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def _longest_wait_ms(run: Run, batch: Tensor) -> float:
    """How long this thread was kept from running at most while another runs the network; the median of five runs."""
    waits = []
    for _ in range(5):
        thread = threading.Thread(target=run, args=(batch,))
        before = time.perf_counter()
        longest = 0.0
        thread.start()
        while thread.is_alive():
            now = time.perf_counter()
            longest, before = max(longest, now - before), now
            time.sleep(0)
        longest = max(longest, time.perf_counter() - before)
        waits.append(longest * 1000)
    return statistics.median(waits)


if __name__ == "__main__":
    main()
