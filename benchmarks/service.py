"""What the whole service costs on this machine: `python -m benchmarks.service`.

Prints a table: start to ready, memory, submit to first optimizer step, upload of a large archive, and what the server
adds to its own model call: of eager PyTorch, so the server builds no other backends, which would take the cores.
Everything runs on loopback in a temporary home. Takes about two minutes.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import psutil
import torch
from PIL import Image

from app.client import Client
from app.processes.address import free_port
from app.schemas.models import UploadedManifest
from models.architectures.catalog import build, get_architecture
from models.images.decode import decode_image
from models.predictors.classification import Classifier
from models.store.state_dicts import save_state_dict
from workers.configs.fine_tune import FineTuneConfig, Hyperparameters

MIB = 1024**2
READY_WITHIN_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A `fovea up` of this benchmark."""

    url: str
    process: psutil.Process
    ready_s: float

    def rss_mib(self, command: str) -> float:
        """Resident memory of the child that runs `fovea COMMAND`, its own children not counted."""
        return self.child(command).memory_info().rss / MIB

    def child(self, command: str) -> psutil.Process:
        for process in self.process.children(recursive=True):
            if command in process.cmdline()[:6]:
                return process
        raise LookupError(command)


@contextmanager
def stack(home: Path) -> Iterator[Stack]:
    """`fovea up` on a free port, from its start to its end."""
    port = free_port()
    env = {**os.environ, "FOVEA_BACKEND": "eager"}
    command = [sys.executable, "-m", "app.cli", "up", "--home", str(home), "--port", str(port)]
    log = (home.parent / "up.log").open("ab")
    began = time.perf_counter()
    with log, subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_ready(url, process)
            yield Stack(url=url, process=psutil.Process(process.pid), ready_s=time.perf_counter() - began)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_WITHIN_S
    with httpx.Client() as client:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if client.get(f"{url}/readyz").status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.02)
    raise TimeoutError(url)


@dataclass(kw_only=True)
class Table:
    """Rows as they are measured."""

    rows: list[tuple[str, str]] = field(default_factory=list)

    def add(self, what: str, value: str) -> None:
        self.rows.append((what, value))
        print(f"| {what} | {value} |", flush=True)


@dataclass(kw_only=True)
class PeakMemory:
    """The largest resident memory of a process while it is watched, MiB."""

    process: psutil.Process
    peak_mib: float = 0.0
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> PeakMemory:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            self.peak_mib = max(self.peak_mib, self.process.memory_info().rss / MIB)


def photos_zip(path: Path, *, size_bytes: int, side_px: int = 768) -> int:
    """An ImageFolder archive of noisy photos of at least that size, stored as cameras' JPEGs are; returns the count."""
    generator = np.random.default_rng(0)
    kinds = []
    for _ in range(16):
        noise = generator.integers(0, 256, (side_px, side_px * 4 // 3, 3), dtype=np.uint8)
        content = BytesIO()
        Image.fromarray(noise).save(content, "JPEG", quality=90)
        kinds.append(content.getvalue())
    written = count = 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        while written < size_bytes:
            photo = kinds[count % len(kinds)] + count.to_bytes(8, "big")  # after the end marker: no two files alike
            archive.writestr(f"{'ab'[count % 2]}/{count:06d}.jpg", photo)
            written += len(photo)
            count += 1
    return count


def measure_start(home: Path, table: Table, *, rounds: int) -> None:
    with stack(home):
        pass  # warms the disk cache and makes the home
    seconds = []
    for _ in range(rounds):
        with stack(home) as running:
            seconds.append(running.ready_s)
    table.add("`fovea up` to ready, warm", f"{statistics.median(seconds):.1f} s (median of {rounds})")


def measure_memory_and_classify(running: Stack, directory: Path, table: Table, *, calls: int) -> None:
    table.add("RSS of the idle worker", f"{running.rss_mib('worker'):.0f} MiB")
    photo = photo_of(500, 375)
    upload_resnet18(running.url, directory)
    architecture = get_architecture("resnet18")
    module = build("resnet18", num_categories=1000)
    predictor = Classifier(
        module, categories=architecture.categories, preset=architecture.preset, device=torch.device("cpu")
    )
    image = decode_image(photo)
    http_ms, bare_ms, network_ms = [], [], []
    with httpx.Client(base_url=running.url, timeout=60) as client:

        def ask() -> None:
            headers = {"content-type": "image/jpeg"}
            answer = client.post("/v1/classify", params={"model": "bench"}, content=photo, headers=headers)
            timing = re.search(r"inference;dur=([\d.]+)", answer.raise_for_status().headers["Server-Timing"])
            assert timing is not None
            network_ms.append(float(timing[1]))

        for call in range(calls):  # in turn: the machine's speed drifts
            pair = timed_ms(ask), timed_ms(lambda: predictor.scores([image]))
            if call >= calls // 5:  # the first ones warm up
                http_ms.append(pair[0])
                bare_ms.append(pair[1])
    table.add("RSS of the API with one resnet18", f"{running.rss_mib('serve'):.0f} MiB")
    around_ms = [http - network for http, network in zip(http_ms, network_ms[-len(http_ms) :], strict=True)]
    table.add("p50 of /v1/classify at concurrency 1", f"{statistics.median(http_ms):.1f} ms")
    table.add("p50 of a bare model call in another process", f"{statistics.median(bare_ms):.1f} ms")
    table.add("p50 of what the server adds to its own model call", f"{statistics.median(around_ms):.1f} ms")


def measure_first_step(running: Stack, directory: Path, table: Table) -> None:
    archive = directory / "small.zip"
    photos_zip(archive, size_bytes=8 * MIB, side_px=192)
    with Client(running.url) as client:
        client.datasets.upload(archive, name="small")
        began = time.time()
        settings = Hyperparameters(epochs=1, image_size_px=64, batch_size=8)
        config = FineTuneConfig(model="resnet18", weights="none", dataset="small", hyperparameters=settings)
        job = client.jobs.create(config)
        stepped = next(
            event for event in client.jobs.events(job.id) if event.type == "progress" and event.data["step"] >= 1
        )
        table.add("submit to first optimizer step", f"{stepped.at.timestamp() - began:.1f} s")
        client.jobs.wait(job.id)


def measure_upload(running: Stack, directory: Path, table: Table, *, size_bytes: int) -> None:
    archive = directory / "large.zip"
    count = photos_zip(archive, size_bytes=size_bytes)
    api = running.child("serve")
    before_mib = api.memory_info().rss / MIB
    sent_at: list[float] = []

    def progress(done: int, total: int) -> None:
        if done >= total:
            sent_at.append(time.perf_counter())

    with Client(running.url, timeout_s=1800) as client, PeakMemory(process=api) as memory:
        began = time.perf_counter()
        client.datasets.upload(archive, name="large", progress=progress)
        total_s = time.perf_counter() - began
    size_mib = archive.stat().st_size / MIB
    receive_s = sent_at[0] - began if sent_at else total_s
    table.add(f"upload of {size_mib:.0f} MiB, {count} photos: received", f"{size_mib / receive_s:.0f} MiB/s")
    table.add("the same, unpacked, every photo decoded, published", f"{size_mib / total_s:.0f} MiB/s ({total_s:.0f} s)")
    table.add("RSS of the API before, at most during", f"{before_mib:.0f} MiB, {memory.peak_mib:.0f} MiB")


def upload_resnet18(url: str, directory: Path) -> None:
    weights = directory / "resnet18.safetensors"
    save_state_dict(build("resnet18", num_categories=1000).state_dict(), weights)
    # ImageNet's own labels have two cranes and two maillots
    manifest = UploadedManifest(architecture="resnet18", categories=tuple(f"category {n}" for n in range(1000)))
    with Client(url) as client:
        client.models.upload("bench", weights, manifest)


def photo_of(width: int, height: int) -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    content = BytesIO()
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(content, "JPEG", quality=90)
    return content.getvalue()


def timed_ms(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upload-mib", type=int, default=1024)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    table = Table()
    print(f"torch {torch.__version__}, {os.cpu_count()} cores\n\n| what | measured |\n|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        home = directory / "home"
        home.mkdir()
        measure_start(home, table, rounds=options.rounds)
        with stack(home) as running:
            measure_memory_and_classify(running, directory, table, calls=options.calls)
            measure_first_step(running, directory, table)
            measure_upload(running, directory, table, size_bytes=options.upload_mib * MIB)


if __name__ == "__main__":
    main()
