"""`python -m benchmarks.gpu ARCHIVE`: what an NVIDIA GPU brings, as Markdown. ARCHIVE is a zip of photos.

From JPEG to view on the processor and on the GPU, and how far the views differ; the network alone, each way to run it;
memory of the GPU before a model, with it and after it; the whole server over HTTP against the fastest loop without it.
Random weights of a fixed seed. Nothing else should use the GPU meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import psutil
import simplejpeg
import torch
from torch import Tensor

from app.engine.setup import open_models
from app.settings import ApiSettings
from benchmarks.serving import machine
from benchmarks.serving.home import make_home
from benchmarks.serving.load import Tally, closed_loop, run
from benchmarks.serving.pictures import read_pictures
from benchmarks.serving.servers import FoveaStart, Server, started
from benchmarks.serving.tables import print_table
from models.architectures.catalog import get_architecture
from models.backends.backend import Backend
from models.backends.choosing import COMPILERS
from models.backends.compiler import BuildRequest
from models.backends.eager import EagerBackend
from models.backends.machine import best_precision
from models.errors import BackendError
from models.images.decode import DecodeJpeg, decode_image, encode_image
from models.images.nvjpeg import open_nvjpeg
from models.images.presets import resize_and_crop
from models.manifest import Preset
from models.precision import Precision
from models.predictors import loading
from models.store.registry import Registry

MODEL = "gpu-bench"
BATCHES: Final = (1, 8, 32)
CONCURRENCIES: Final = (16, 64, 256)
_MIB = 1024**2
_BUILT_WITHIN_S = 1800.0  # by a server that other backends suit than those that are stored
_LEAVES_WITHIN_S = 30.0  # what an unloaded model held


def main() -> None:
    """Reads the command line, measures, prints. Ends with 1 where there is no GPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path, help="a zip of photos")
    parser.add_argument("--architecture", default="resnet50", help="a classifier")
    parser.add_argument("--seconds", type=float, default=5.0, help="of one stretch")
    parser.add_argument("--processes", type=int, default=machine.cores(), help="of the server that has several")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("PyTorch sees no NVIDIA GPU here: there is nothing to measure.")
    device = torch.device("cuda", 0)
    pictures = read_pictures(options.archive)
    print(f"## What a GPU brings\n\n- GPU: {torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}")
    print("\n".join(machine.describe()))
    print(f"- {len(pictures)} JPEGs of {options.archive.name}; {options.seconds:g} s a figure\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="fovea-bench-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        home = directory / "home"
        make_home(home, options.archive, {MODEL: options.architecture})
        preset = get_architecture(options.architecture).preset
        assert isinstance(preset, Preset)
        print_preparing(pictures, preset, device, seconds=options.seconds)
        registry = Registry(home / "registry")
        predictor = loading.load_version(registry, registry.get(MODEL, 1), device)
        fastest = print_networks(predictor.backend, preset, directory, seconds=options.seconds)
        del predictor
        asyncio.run(print_memory(home, device))  # builds what the servers will find
        print_servers(home, pictures, fastest, seconds=options.seconds, processes=options.processes, logs=directory)


def print_preparing(pictures: Sequence[bytes], preset: Preset, device: torch.device, *, seconds: float) -> None:
    """From bytes to views, in as many threads as there are cores."""
    ways: dict[str, DecodeJpeg | None] = {"processor": None}
    nvjpeg = open_nvjpeg(device) if device.type == "cuda" else None
    if nvjpeg is not None:
        ways["GPU where it decodes alike"] = nvjpeg
    rows = []
    for title, decode_jpeg in ways.items():
        work = partial(prepared_by_turns, pictures, preset, decode_jpeg)
        rate = images_per_second(work, device, threads=machine.cores(), seconds=seconds)
        views = [prepared(picture, preset, decode_jpeg) for picture in pictures]
        on_gpu = sum(view.device.type == "cuda" for view in views)
        largest, changed = differences(views, [prepared(picture, preset, None) for picture in pictures])
        rows.append([title, f"{rate:.0f}", f"{on_gpu} of {len(views)}", str(largest), f"{changed:.2%}"])
    halved = [halve_colours(picture) for picture in pictures]
    repeated = [resize_and_crop(preset, repeat_colours(picture)) for picture in halved]
    largest, changed = differences(repeated, [prepared(picture, preset, None) for picture in halved])
    rows.append(["processor, colours halved: repeated or interpolated", "", "", str(largest), f"{changed:.2%}"])
    print("### JPEG to view, all cores\n")
    print_table(["decoder", "images/s", "on the GPU", "largest difference, levels", "values by more than 1"], rows)


def prepared(picture: bytes, preset: Preset, decode_jpeg: DecodeJpeg | None) -> Tensor:
    """As the server does it."""
    return resize_and_crop(preset, decode_image(picture, decode_jpeg=decode_jpeg))


def prepared_by_turns(pictures: Sequence[bytes], preset: Preset, decode_jpeg: DecodeJpeg | None, number: int) -> Tensor:
    """As if there were no end of images."""
    return prepared(pictures[number % len(pictures)], preset, decode_jpeg)


def halve_colours(picture: bytes) -> bytes:
    """The image as most cameras store it, with a colour for four pixels."""
    return encode_image(decode_image(picture), "jpeg")


def repeat_colours(picture: bytes) -> Tensor:
    """What nvJPEG makes of that as torchvision sets it up: libjpeg can do the same."""
    pixels = np.asarray(simplejpeg.decode_jpeg(picture, "RGB", fastupsample=True))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def differences(views: Sequence[Tensor], others: Sequence[Tensor]) -> tuple[int, float]:
    """The largest, in levels, and the share of values that differ by more than one."""
    levels = torch.stack(
        [(view.cpu().int() - other.cpu().int()).abs() for view, other in zip(views, others, strict=True)]
    )
    return int(levels.max()), float((levels > 1).float().mean())


def print_networks(eager: Backend, preset: Preset, directory: Path, *, seconds: float) -> float:
    """The network alone, views on the device and answers on the processor. Returns the best images per second."""
    assert isinstance(eager, EagerBackend)
    rows = []
    best = 0.0
    for backend in backends(eager, directory):
        rates = [network_rate(backend, preset, eager.device, batch=size, seconds=seconds) for size in BATCHES]
        best = max(best, *rates)
        rows.append([f"{backend.name}, {backend.precision}", *(f"{rate:.0f}" for rate in rates)])
    print("### The network alone\n")
    print_table(["backend", *(f"batches of {size}, images/s" for size in BATCHES)], rows)
    return best


def network_rate(backend: Backend, preset: Preset, device: torch.device, *, batch: int, seconds: float) -> float:
    """Images per second."""
    shape = (batch, preset.channels, preset.crop_px, preset.crop_px)
    views = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    return batch * images_per_second(lambda _: backend.run(views), device, threads=1, seconds=seconds)


def backends(eager: EagerBackend, directory: Path) -> Iterator[Backend]:
    """All that there are on the device, one after the other."""
    yield eager
    precision: Precision = best_precision(eager.device)
    for compiler in (each for each in COMPILERS if precision in each.precisions):
        reason = compiler.why_not(eager.device)
        built = directory / f"{compiler.name}-{precision}"
        built.mkdir()
        try:
            if reason is None:
                request = BuildRequest(eager=eager, directory=built, precision=precision)
                compiler.build(request)
                yield compiler.load(request)
        except (BackendError, RuntimeError) as error:
            reason = f"{type(error).__name__}: {error}"
        if reason is not None:
            print(f"No {compiler.name} in {precision}: {reason[:300]}\n", flush=True)


def images_per_second(work: Callable[[int], object], device: torch.device, *, threads: int, seconds: float) -> float:
    """How often per second `threads` threads complete `work`; each call gets the next number."""

    def turns(thread: int) -> int:
        done = 0
        while time.perf_counter() < ends_at:
            work(thread + done * threads)
            done += 1
        return done

    work(0)
    began_at = time.perf_counter()
    ends_at = began_at + seconds
    with ThreadPoolExecutor(threads) as pool:
        done = sum(pool.map(turns, range(threads)))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return done / (time.perf_counter() - began_at)


async def print_memory(home: Path, device: torch.device) -> None:
    """What the model takes on the device, by the server's own loading and unloading; backends are built and stored."""
    settings = ApiSettings(_env_file=None, home=home, device=str(device), offline=True)
    models, builds = open_models(settings, Registry(home / "registry"), lookup_every_s=0.0, replicas=1)
    gc.collect()
    torch.cuda.empty_cache()
    held = {"before the model was loaded": memory_bytes(device)}
    loaded = await models.load(MODEL)
    held["loaded, eager"] = memory_bytes(device)
    await builds.idle()
    backend = loaded.predictor.backend
    held[f"on its best backend ({backend.name}, {backend.precision})"] = memory_bytes(device)
    del loaded, backend
    await models.unload(MODEL)
    await asyncio.to_thread(wait_for_memory, device, held["before the model was loaded"])
    held["unloaded"] = memory_bytes(device)
    await builds.close()
    await models.close()
    print("### Memory of the GPU\n")
    rows = [(when, f"{used / _MIB:.0f}", f"{by_torch / _MIB:.0f}") for when, (used, by_torch) in held.items()]
    print_table(["when", "in use, MiB", "of it held by PyTorch, MiB"], rows)


def memory_bytes(device: torch.device) -> tuple[int, int]:
    """In use on the device, by anyone, and held by this process' PyTorch."""
    free, total = torch.cuda.mem_get_info(device)
    return total - free, torch.cuda.memory_reserved(device)


def wait_for_memory(device: torch.device, wanted: tuple[int, int]) -> None:
    """Until no more is in use, or for half a minute."""
    deadline = time.monotonic() + _LEAVES_WITHIN_S
    while memory_bytes(device) > wanted and time.monotonic() < deadline:
        time.sleep(0.1)


def print_servers(
    home: Path, pictures: Sequence[bytes], fastest: float, *, seconds: float, processes: int, logs: Path
) -> None:
    """Each way to serve, under growing load."""
    ways = {
        "one process": (["--processes", "1"], {"FOVEA_JPEG_DECODER": "auto"}),
        "one process, JPEGs on the processor": (["--processes", "1"], {"FOVEA_JPEG_DECODER": "cpu"}),
        f"{processes} processes and an engine process": (["--processes", str(processes)], {"FOVEA_ENGINE": "process"}),
    }
    rows = []
    for title, (flags, env) in ways.items():
        server = FoveaStart(home=home, flags=flags, env=env).serving(MODEL)
        for concurrency, tally, busy_cores in loads(server, pictures, seconds=seconds, logs=logs):
            rate = tally.images_per_second
            client_cores = tally.client_cpu_s / seconds
            rows.append(
                [
                    title,
                    str(concurrency),
                    f"{rate:.0f}",
                    f"{rate / fastest:.2f}",
                    f"{tally.quantile_ms(0.5):.0f} / {tally.quantile_ms(0.99):.0f}",
                    str(tally.errors),
                    f"{busy_cores:.1f} + {client_cores:.1f} of {machine.cores()}",
                ]
            )
    print("### Over HTTP, one JPEG per request\n")
    print_table(
        [
            "server",
            "clients",
            "images/s",
            f"of the {fastest:.0f} without HTTP (target >= 0.50)",
            "p50 / p99, ms",
            "errors",
            "cores busy: server + clients",
        ],
        rows,
    )
    print("All cores busy: the processor binds. One core busy: one process's event loop. Else the GPU, or the lane.\n")


def loads(
    server: Server, pictures: Sequence[bytes], *, seconds: float, logs: Path
) -> Iterator[tuple[int, Tally, float]]:
    """Clients, what they got, and how many cores the server kept busy meanwhile."""
    requests = server.raw(pictures)
    with started(server, pictures[0], logs) as running:
        run(closed_loop(running.child.port, requests, concurrency=64, seconds=2 * seconds))
        deadline = time.monotonic() + _BUILT_WITHIN_S
        while running.child.is_building() and time.monotonic() < deadline:
            pass  # it looks for some seconds
        for concurrency in CONCURRENCIES:
            before = cpu_s(running.child.process.pid)
            began_at = time.perf_counter()
            tally = run(closed_loop(running.child.port, requests, concurrency=concurrency, seconds=seconds))
            busy = (cpu_s(running.child.process.pid) - before) / (time.perf_counter() - began_at)
            yield concurrency, tally, busy


def cpu_s(pid: int) -> float:
    """Processor time of a process and those below it."""
    parent = psutil.Process(pid)
    return sum(sum(each.cpu_times()[:2]) for each in (parent, *parent.children(recursive=True)))


if __name__ == "__main__":
    main()
