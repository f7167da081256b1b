"""Whether `classify_many` keeps a server as busy as a bare load loop does: `python -m benchmarks.bulk`.

The loop sends bodies made in advance and reads no answer, with as many connections and images per request; the client
reads files, makes the forms, and reads and writes every answer, as `fovea classify --out` does. Both in turn, the best
round of each, on the same images and a model so small that HTTP and decoding are most of the work.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from click.testing import CliRunner

from app.cli import cli
from app.client import Client
from app.client.bulk import Pace
from app.schemas.models import UploadedManifest
from benchmarks.service import Stack, photo_of, stack
from models.architectures.catalog import build
from models.store.state_dicts import save_state_dict

MODEL = "bench"
CATEGORIES = 10


def upload_model(url: str, directory: Path, architecture: str) -> None:
    weights = directory / "weights.safetensors"
    save_state_dict(build(architecture, num_categories=CATEGORIES).state_dict(), weights)
    manifest = UploadedManifest(architecture=architecture, categories=tuple(f"category {n}" for n in range(CATEGORIES)))
    with Client(url) as client:
        client.models.upload(MODEL, weights, manifest)


def load_loop_images_per_s(url: str, photo: bytes, count: int, pace: Pace) -> float:
    """A body as bytes, sent again and again by one thread a connection."""
    files = [("image", (f"{number}.jpg", photo, "image/jpeg")) for number in range(pace.images_per_request)]
    body = httpx.Request("POST", url, files=files)
    body.read()
    requests = iter(range(count // pace.images_per_request))
    lock = threading.Lock()

    def send() -> None:
        with httpx.Client(base_url=url, timeout=60, headers={"Content-Type": body.headers["Content-Type"]}) as http:
            while True:
                with lock:
                    if next(requests, None) is None:
                        return
                http.post("/v1/classify", params={"model": MODEL}, content=body.content).raise_for_status()

    def run() -> None:
        threads = [threading.Thread(target=send) for _ in range(pace.in_flight)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return count / seconds_of(run)


def command_images_per_s(url: str, photos: Path, out: Path, count: int, pace: Pace) -> float:
    """`fovea classify DIR --out FILE`, in this process: its start is not what is measured."""
    flags = ["--in-flight", pace.in_flight, "--images-per-request", pace.images_per_request, "--url", url]
    arguments = ["classify", photos, "--model", MODEL, "--out", out, *flags]

    def run() -> None:
        result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        assert len(out.read_bytes().splitlines()) == count

    return count / seconds_of(run)


def seconds_of(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def measure(running: Stack, directory: Path, photo: bytes, options: argparse.Namespace) -> None:
    photos = directory / "photos"
    photos.mkdir()
    for number in range(options.images):
        (photos / f"{number:05}.jpg").write_bytes(photo)
    for in_flight in options.in_flight:
        for images_per_request in options.images_per_request:
            pace = Pace(in_flight=in_flight, images_per_request=images_per_request)
            load_loop_images_per_s(running.url, photo, options.images // 4, pace)  # warms up
            loop, command = [], []
            for number in range(options.rounds):
                out = directory / f"{in_flight}-{images_per_request}-{number}.jsonl"
                loop.append(load_loop_images_per_s(running.url, photo, options.images, pace))
                command.append(command_images_per_s(running.url, photos, out, options.images, pace))
            best, ours = max(loop), max(command)  # the rounds that other work disturbed least
            cells = (in_flight, images_per_request, f"{best:.0f}", f"{ours:.0f}", f"{ours / best:.2f}")
            print("|", " | ".join(map(str, cells)), "|", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="garment_classifier")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--images-per-request", type=int, nargs="+", default=[1, 4, 8, 16])
    options = parser.parse_args()
    print(
        "| in flight | images per request | load loop, images/s | `--out`, images/s | ratio |\n|---|---|---|---|---|",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        home = directory / "home"
        home.mkdir()
        with stack(home) as running:
            upload_model(running.url, directory, options.architecture)
            measure(running, directory, photo_of(500, 375), options)


if __name__ == "__main__":
    main()
