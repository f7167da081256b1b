"""`python -m benchmarks.detector_speed.ways`: one detector, told by standard input how and when to run.

A line `{"label": "ours eager", "count": 4}` is answered with one of how many seconds a batch of 4 took and how many of
them each network did; the end of the input ends it. Says first which ways there are.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from models.architectures.architecture import Architecture
from models.architectures.catalog import build, get_architecture
from models.backends.compiler import BuildRequest, CompiledBackend, Compiler
from models.backends.detection.parts import Network
from models.backends.eager import EagerBackend
from models.backends.graphs import DetectionGraph
from models.backends.machine import best_precision
from models.backends.openvino import OpenVino
from models.backends.openvino_int8 import OpenVinoInt8
from models.backends.views import natural_views
from models.images.presets import scaled_size
from models.manifest import AnyPreset
from models.precision import Precision

_SIDES = (480, 640)  # px, of the images
_COMPILERS: dict[str, Compiler] = {
    "openvino": OpenVino(),
    "openvino_int8": OpenVinoInt8(),
}
_EXAMPLES = 8  # made-up images do for measuring int8
_CPU = torch.device("cpu")
Spent = defaultdict[str, float]  # seconds, by network
Way = Callable[[Tensor, Spent], object]
Clock = Callable[[], float]


def main() -> None:
    """Builds the ways, says which, then runs them as it is told."""
    parser = argparse.ArgumentParser()
    parser.add_argument("detector")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--compilers", nargs="*", choices=list(_COMPILERS), required=True)
    parser.add_argument("--precision", choices=["auto", "float32"], required=True)
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--ours", action="store_true", help="our ways instead of torchvision's")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    precision = best_precision(_CPU) if options.precision == "auto" else "float32"
    clock = time.process_time if options.cpu_time else time.perf_counter
    torch.manual_seed(0)
    architecture = get_architecture(options.detector)
    ways = _ours(architecture, options.compilers, precision, clock) if options.ours else _torchvisions(architecture)
    print(json.dumps({"ways": list(ways), "torch": torch.__version__, "precision": precision}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(_run(architecture, ways, clock, **asked)), flush=True)


def _torchvisions(architecture: Architecture) -> dict[str, Way]:
    whole = _module(architecture)
    return {"torchvision eager": lambda batch, _: whole(list(batch.float() / 255))}


def _ours(architecture: Architecture, compilers: list[str], precision: Precision, clock: Clock) -> dict[str, Way]:
    preset = architecture.scale_preset
    eager = EagerBackend(DetectionGraph(_module(architecture), preset), _CPU)
    assert isinstance(eager.graph, DetectionGraph)
    detector = eager.graph.split
    assert detector is not None, f"{architecture.name} runs whole"
    split = detector

    def way(networks: Mapping[str, Network]) -> Way:
        return lambda batch, spent: split.detect(
            batch, {name: _timed(name, network, spent, clock) for name, network in networks.items()}
        )

    ways = {"ours eager": way(eager.networks)}
    for name, networks in _compiled(eager, preset, compilers, precision):
        ways[name] = way(networks)
    return ways


def _module(architecture: Architecture) -> torch.nn.Module:
    categories = len(architecture.categories)
    return build(architecture.name, num_categories=categories).eval().requires_grad_(False)


def _compiled(
    eager: EagerBackend, preset: AnyPreset, compilers: list[str], precision: Precision
) -> Iterator[tuple[str, Mapping[str, Network]]]:
    """Built as servers build them, by the compiler's name."""
    for name in compilers:
        compiler = _COMPILERS[name]
        own = precision if precision in compiler.precisions else "int8"
        with tempfile.TemporaryDirectory(prefix="fovea-speed-") as directory:
            examples = natural_views(preset, _EXAMPLES)
            request = BuildRequest(eager=eager, directory=Path(directory), precision=own, examples=examples)
            compiler.build(request)
            backend = compiler.load(request)
        assert isinstance(backend, CompiledBackend)
        yield name, backend.networks


def _timed(name: str, network: Network, spent: Spent, clock: Clock) -> Network:
    """The same network, whose seconds are added to `spent`."""

    def run(batch: Tensor) -> tuple[Tensor, ...]:
        began = clock()
        answers = network(batch)
        spent[name] += clock() - began
        return answers

    return run


@torch.inference_mode()
def _run(
    architecture: Architecture, ways: Mapping[str, Way], clock: Clock, *, label: str, count: int
) -> dict[str, object]:
    """Twice, and the second counts: who was before left caches and threads, and a server repeats itself."""
    height, width = scaled_size(architecture.scale_preset, *_SIDES)
    generator = torch.Generator().manual_seed(count)
    batch = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)
    ways[label](batch, defaultdict(float))
    spent: Spent = defaultdict(float)
    began = clock()
    ways[label](batch, spent)
    return {"seconds": clock() - began, "networks": spent}


if __name__ == "__main__":
    main()
