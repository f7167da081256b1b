"""`python -m benchmarks.detector_speed`: torchvision's detectors as they are, taken apart, and with compiled networks.

Whole detectors from random weights, pictures to boxes, all ways in turn in one process: images a second (median), how
many times torchvision's (median of each round's ratio), and where the time goes. float32 throughout.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from models.architectures.catalog import build, get_architecture
from models.backends.detection.parts import Network, Part, SplitDetector
from models.backends.detection.split import split
from models.presets import scaled_size

_SIDES = (480, 640)  # px, of the pictures
_DETECTORS = ["ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_resnet50_fpn"]
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
    parser.add_argument("--cpu-time", action="store_true", help="of the process, where others use the machine too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.cpu_time else time.perf_counter
    what = "CPU time" if options.cpu_time else "wall clock"
    print(f"torch {torch.__version__}, {options.threads} threads, {options.rounds} rounds, {what}\n")
    print("| detector | batch | way | images/s | x torchvision | where the time goes, ms |")
    print("|---|---|---|---|---|---|")
    for name in options.detectors:
        with tempfile.TemporaryDirectory(prefix="fovea-speed-") as home:
            _measure(name, options, clock, Path(home))


def _measure(name: str, options: argparse.Namespace, clock: Callable[[], float], home: Path) -> None:
    torch.manual_seed(0)
    architecture = get_architecture(name)
    whole = build(name, num_categories=len(architecture.categories)).eval().requires_grad_(False)
    detector = split(whole)
    assert detector is not None, f"{name} runs whole"
    detector.module.to(memory_format=torch.channels_last)
    height, width = scaled_size(architecture.scale_preset, *_SIDES)
    compiled = {
        compiler: {part.name: _COMPILERS[compiler](part, home) for part in detector.parts(height, width)}
        for compiler in options.compilers
    }
    spent: Spent = defaultdict(lambda: defaultdict(float))
    ways: dict[str, Way] = {"torchvision eager": lambda batch: whole(list(batch.float() / 255))}
    everything: dict[str, Mapping[str, Network]] = {"ours eager": detector.networks, **compiled}
    for label, networks in everything.items():
        ways[label] = _taken_apart(detector, networks, spent[label], clock)
    for count in options.batches:
        batch = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)
        for of_way in spent.values():
            of_way.clear()
        seconds = _in_turn(ways, batch, options.rounds, clock)
        _print_rows(name, count, seconds, spent)


@torch.inference_mode()
def _in_turn(ways: Mapping[str, Way], batch: Tensor, rounds: int, clock: Callable[[], float]) -> Seconds:
    """Seconds that each way takes in each round, after one round that does not count."""
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(rounds + 1):
        for label, way in ways.items():
            began = clock()
            way(batch)
            seconds[label].append(clock() - began)
    return {label: taken[1:] for label, taken in seconds.items()}


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
        inside = {part: 1000 * total / (len(taken) + 1) for part, total in spent[label].items()}  # of all rounds
        if inside:
            inside["around"] = max(0.0, 1000 * statistics.mean(taken) - sum(inside.values()))
        where = ", ".join(f"{part} {ms:.1f}" for part, ms in inside.items())
        print(f"| `{name}` | {count} | {label} | {rate:.2f} | {ratio:.2f} | {where} |", flush=True)


def _exported(part: Part) -> ExportedProgram:
    rows = Dim("rows", min=1, max=part.most_rows)
    with torch.no_grad():
        return torch.export.export(part.module.eval(), part.examples, dynamic_shapes=({0: rows},))


def _aot_inductor(part: Part, home: Path) -> Network:
    from torch._inductor import aoti_compile_and_package, aoti_load_package

    package = aoti_compile_and_package(
        _exported(part), package_path=str(home / f"{part.name}.pt2"), inductor_configs={"freezing": True}
    )
    loaded = aoti_load_package(package)

    def run(batch: Tensor) -> tuple[Tensor, ...]:
        return tuple(loaded(batch))

    return run


def _openvino(part: Part, home: Path) -> Network:  # noqa: ARG001 - one signature for both
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # it reports to its maker otherwise
    import openvino

    logging.disable(logging.WARNING)  # about operators that newer PyTorch does not have
    model = openvino.convert_model(_exported(part))
    logging.disable(logging.NOTSET)
    precision = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = openvino.Core().compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY", **precision})
    request = compiled.create_infer_request()

    def run(batch: Tensor) -> tuple[Tensor, ...]:
        found = request.infer([batch.contiguous().numpy()], share_inputs=True, share_outputs=True)
        return tuple(torch.from_numpy(found[number]) for number in range(len(found)))

    return run


_COMPILERS: dict[str, Callable[[Part, Path], Network]] = {"aot_inductor": _aot_inductor, "openvino": _openvino}


if __name__ == "__main__":
    main()
