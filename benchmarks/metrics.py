"""What an image costs in metrics: `python -m benchmarks.metrics`. Takes a few seconds.

All that is called for a request with one image, in a batch of one and in full batches; for a process alone, and for
one of several, whose values lie in a file. And what a scrape costs when a hundred model versions have been asked.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from prometheus_client import generate_latest

from app.engine.model_source import ModelSource
from app.metrics.instruments import Instruments
from models.predictor import AnyPredictor

IMAGES = 20_000
REPEATS = 5
VERSIONS = 100


def main() -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as directory:
        for title, place in (("a process alone", None), ("one of several", Path(directory))):
            instruments = Instruments(directory=place)
            for batch in (1, 8):
                print(f"{title}, batches of {batch}: {image_us(instruments, batch):.1f} us per image")
            for version in range(VERSIONS):
                tell(instruments, a_source(version), batch=1)
            print(f"{title}, scrape of {VERSIONS} versions: {scrape_ms(instruments):.0f} ms")


def image_us(instruments: Instruments, batch: int) -> float:
    """The best of several tries, in microseconds of a core per image."""
    source = a_source(1)
    tries = []
    for _ in range(REPEATS):
        began_at = time.thread_time()
        for _ in range(IMAGES // batch):
            tell(instruments, source, batch=batch)
        tries.append((time.thread_time() - began_at) / IMAGES)
    return min(tries) * 1e6


def tell(instruments: Instruments, source: ModelSource, *, batch: int) -> None:
    """What the engine and the middleware tell of `batch` requests with one image each."""
    observer = instruments.predictions
    observer.batch_predicted(source, backend="eager", queue_s=[0.003] * batch, inference_s=0.004)
    for _ in range(batch):
        observer.image_predicted(source, backend="eager", decode_s=0.002, finish_s=0.0003)
        observer.request_ended("m", source, outcome="ok", images=1, seconds=0.01, backend="eager")
        instruments.http_requests.count("POST", "/v1/classify", 200)


def scrape_ms(instruments: Instruments) -> float:
    """The best of three."""
    tries = []
    for _ in range(3):
        began_at = time.thread_time()
        generate_latest(instruments.registry)
        tries.append(time.thread_time() - began_at)
    return min(tries) * 1000


def a_source(version: int) -> ModelSource:
    """Of a model that is never loaded."""
    return ModelSource(name="m", version=version, architecture="a", digest=f"m/{version}", size_bytes=1, load=_load)


def _load() -> AnyPredictor:
    raise NotImplementedError


if __name__ == "__main__":
    main()
