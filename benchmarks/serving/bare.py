"""`python -m benchmarks.serving.bare`: the same work without HTTP, told by standard input when to do it.

A line `{"seconds": 3, "batch": 4}` is answered with one of how many images per second were done and how long each batch
took; the end of the input ends it. Started by `ceiling`, one per core or one for all cores.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.serving.networks import BACKENDS, decode_and_prepare, make_network, preset_of, stock_module

Step = Callable[[list[bytes]], object]


def main() -> None:
    """Makes the network, says `ready`, then works as it is told."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", choices=[*BACKENDS, "detector"], required=True)
    parser.add_argument("--architecture", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True, help="a directory of JPEGs")
    parser.add_argument("--categories", type=int, required=True)
    parser.add_argument("--intra-threads", type=int, required=True, help="of one call")
    parser.add_argument("--workers", type=int, required=True, help="Python threads that work at the same time")
    parser.add_argument("--batches", type=int, nargs="+", required=True, help="sizes, ascending")
    options = parser.parse_args()
    pictures = [path.read_bytes() for path in sorted(options.pictures.iterdir())]
    try:
        step = _detector(options) if options.backend == "detector" else _classifier(options)
    except (ImportError, RuntimeError) as error:
        print(json.dumps({"unavailable": f"{type(error).__name__}: {error}"[:300]}), flush=True)
        return
    step(pictures[: options.batches[-1]])
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(_work(step, pictures, options.workers, **asked)), flush=True)


def _classifier(options: argparse.Namespace) -> Step:
    preset = preset_of(options.architecture)
    network = make_network(
        options.backend,
        options.architecture,
        options.weights,
        categories=options.categories,
        threads=options.intra_threads,
        sizes=options.batches,
        callers=options.workers,
        pictures=options.pictures,
    )

    def step(batch: list[bytes]) -> object:
        views = torch.stack([decode_and_prepare(preset, data) for data in batch])
        return [row.topk(5) for row in network(views)]

    return step


def _detector(options: argparse.Namespace) -> Step:
    """torchvision's own detector, eager float32."""
    from models.architectures.catalog import get_architecture
    from models.images.decode import decode_image
    from models.images.presets import scale

    torch.set_num_threads(options.intra_threads)
    architecture = get_architecture(options.architecture)
    preset = architecture.scale_preset
    module = stock_module(options.architecture, options.weights, categories=len(architecture.categories))

    def step(batch: list[bytes]) -> object:
        views: list[Tensor] = [scale(preset, decode_image(data)).float() / 255 for data in batch]
        with torch.inference_mode():
            return module(views)

    return step


def _work(step: Step, pictures: list[bytes], workers: int, *, seconds: float, batch: int) -> dict[str, object]:
    rates = [0.0] * workers
    latencies_ms: list[float] = []

    def loop(worker: int) -> None:
        at = worker * len(pictures) // workers
        done, began_at = 0, time.perf_counter()
        ended_at = began_at
        while ended_at < began_at + seconds:
            chosen = [pictures[(at + done + number) % len(pictures)] for number in range(batch)]
            before = ended_at
            step(chosen)
            ended_at = time.perf_counter()
            done += batch
            latencies_ms.append((ended_at - before) * 1000)
        rates[worker] = done / (ended_at - began_at)

    threads = [threading.Thread(target=loop, args=(worker,)) for worker in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"images_per_second": sum(rates), "latencies_ms": latencies_ms}


if __name__ == "__main__":
    main()
