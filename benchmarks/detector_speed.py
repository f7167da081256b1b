"""`python -m benchmarks.detector_speed`: torchvision's detectors as they are, taken apart, and as they are served.

Whole detectors from random weights, pictures to boxes, all ways in turn in one process: images a second (median), how
many times torchvision's in float32 (median of each round's ratio), and where the time goes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from models.architectures.catalog import build, get_architecture
from models.backends.aot_inductor import AotInductor
from models.backends.backend import Precision
from models.backends.compiler import CompiledBackend, Compiler
from models.backends.detection.parts import Network, SplitDetector
from models.backends.eager import EagerBackend
from models.backends.graphs import DetectionGraph
from models.backends.machine import best_precision
from models.backends.openvino import OpenVino
from models.backends.openvino_int8 import OpenVinoInt8
from models.backends.views import ViewSize, natural_views
from models.manifest import AnyPreset
from models.presets import scaled_size

_SIDES = (480, 640)  # px, of the pictures
_DETECTORS = ["ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_resnet50_fpn"]
_COMPILERS: dict[str, Compiler] = {
    "openvino": OpenVino(),
    "openvino_int8": OpenVinoInt8(),
    "aot_inductor": AotInductor(),
}
_EXAMPLES = 8  # made-up pictures do for measuring int8
_CPU = torch.device("cpu")
Way = Callable[[Tensor], object]
Seconds = Mapping[str, list[float]]
Spent = defaultdict[str, defaultdict[str, float]]  # seconds by way and network


def main() -> None:
    """Reads the command line, measures, prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detector_speed", description=__doc__.splitlines()[0])
    parser.add_argument("detectors", nargs="*", default=_DETECTORS)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compilers", nargs="*", default=list(_COMPILERS), choices=list(_COMPILERS))
    parser.add_argument("--precision", choices=["auto", "float32"], default="auto", help="of what is not int8")
    parser.add_argument("--cpu-time", action="store_true", help="of the process, where others use the machine too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    precision = best_precision(_CPU) if options.precision == "auto" else "float32"
    clock = time.process_time if options.cpu_time else time.perf_counter
    what = "CPU time" if options.cpu_time else "wall clock"
    load = os.getloadavg()[0]
    print(f"torch {torch.__version__}, {options.threads} threads, {options.rounds} rounds, {what}, load {load:.1f}")
    print(f"compiled networks compute in {precision}, or int8\n")
    print("| detector | batch | way | images/s | x torchvision | where the time goes, ms |")
    print("|---|---|---|---|---|---|")
    for name in options.detectors:
        _measure(name, options, precision, clock)


def _measure(name: str, options: argparse.Namespace, precision: Precision, clock: Callable[[], float]) -> None:
    torch.manual_seed(0)
    architecture = get_architecture(name)
    preset = architecture.scale_preset
    whole = build(name, num_categories=len(architecture.categories)).eval().requires_grad_(False)
    eager = EagerBackend(DetectionGraph(whole, preset), _CPU)
    assert isinstance(eager.graph, DetectionGraph)
    detector = eager.graph.split
    assert detector is not None, f"{name} runs whole"
    spent: Spent = defaultdict(lambda: defaultdict(float))
    ways: dict[str, Way] = {"torchvision eager": lambda batch: whole(list(batch.float() / 255))}
    everything: dict[str, Mapping[str, Network]] = {"ours eager": eager.networks}
    everything.update(_compiled(eager, preset, options.compilers, precision))
    for label, networks in everything.items():
        ways[label] = _taken_apart(detector, networks, spent[label], clock)
    height, width = scaled_size(preset, *_SIDES)
    for count in options.batches:
        batch = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)
        for of_way in spent.values():
            of_way.clear()
        seconds = _in_turn(ways, batch, options.rounds, clock)
        _print_rows(name, count, seconds, spent)


def _compiled(
    eager: EagerBackend, preset: AnyPreset, compilers: list[str], precision: Precision
) -> Iterator[tuple[str, Mapping[str, Network]]]:
    """Built as servers build them, by the compiler's name."""
    size = ViewSize.of(preset)
    for name in compilers:
        compiler = _COMPILERS[name]
        own = precision if precision in compiler.precisions else "int8"
        with tempfile.TemporaryDirectory(prefix="fovea-speed-") as directory:
            examples = natural_views(preset, _EXAMPLES)
            compiler.build(eager, size, Path(directory), precision=own, examples=examples)
            backend = compiler.load(eager, size, Path(directory), precision=own)
        assert isinstance(backend, CompiledBackend)
        yield name, backend.networks


@torch.inference_mode()
def _in_turn(ways: Mapping[str, Way], batch: Tensor, rounds: int, clock: Callable[[], float]) -> Seconds:
    """Seconds that each way takes in each round.

    Each runs twice and counts once: PyTorch's threads spin for milliseconds after what they did last, and whoever comes
    next has the other's caches and shares a core with them. A server does the same again and again.
    """
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for label, way in ways.items():
            way(batch)
            began = clock()
            way(batch)
            seconds[label].append(clock() - began)
    return seconds


def _taken_apart(
    detector: SplitDetector,
    networks: Mapping[str, Network],
    spent: defaultdict[str, float],
    clock: Callable[[], float],
) -> Way:
    """The detector with these networks, whose time is added to `spent` under its name."""

    def timed(name: str, network: Network) -> Network:
        def run(batch: Tensor) -> tuple[Tensor, ...]:
            began = clock()
            answers = network(batch)
            spent[name] += clock() - began
            return answers

        return run

    clocked = {name: timed(name, network) for name, network in networks.items()}
    return lambda batch: detector.detect(batch, clocked)


def _print_rows(name: str, count: int, seconds: Seconds, spent: Spent) -> None:
    base = seconds["torchvision eager"]
    for label, taken in seconds.items():
        ratio = statistics.median(before / after for before, after in zip(base, taken, strict=True))
        rate = count / statistics.median(taken)
        inside = {part: 1000 * total / (2 * len(taken)) for part, total in spent[label].items()}  # of all runs
        if inside:
            inside["around"] = max(0.0, 1000 * statistics.mean(taken) - sum(inside.values()))
        where = ", ".join(f"{part} {ms:.1f}" for part, ms in inside.items())
        print(f"| `{name}` | {count} | {label} | {rate:.2f} | {ratio:.2f} | {where} |", flush=True)


if __name__ == "__main__":
    main()
