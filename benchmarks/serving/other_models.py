"""A larger classifier and a detector: Fovea against the same work without HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.ceiling import Bare, Bench, Loop, bare, loop_on_all_cores
from benchmarks.serving.load import Tally, closed_loop, run
from benchmarks.serving.machine import cores
from benchmarks.serving.servers import FoveaStart, Server, started
from benchmarks.serving.tables import median, print_table, spread
from benchmarks.serving.throughput import Pace

_CONCURRENCIES = (1, 16)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model, and the loop that it is compared with."""

    server: Server
    bench: Bench
    loop: Loop
    is_detector: bool

    @property
    def without_http(self) -> str:
        if self.is_detector:
            return f"torchvision in process, eager float32, {cores()} threads, batch 1"
        return f"no HTTP: {self.loop}"

    def loop_ready(self) -> AbstractContextManager[Bare]:
        """Raises Unfit."""
        if self.is_detector:
            return bare(self.bench, "detector", processes=1, workers=1, intra_threads=cores(), batches=(1,))
        return loop_on_all_cores(self.bench, self.loop.backend, self.loop.style)


def subjects(fovea: FoveaStart, models: Mapping[str, str], *, bench: Bench, loop: Loop) -> list[Subject]:
    """models: architecture of each by name; a detector is known by its architecture's task in its name."""
    found = []
    for model, architecture in models.items():
        is_detector = "ssdlite" in architecture or "rcnn" in architecture
        weights = fovea.home / "registry" / model / "1" / "state_dict.safetensors"
        found.append(
            Subject(
                server=fovea.serving(model, verb="detect" if is_detector else "classify"),
                bench=Bench(python=bench.python, pictures=bench.pictures, architecture=architecture, weights=weights),
                loop=loop,
                is_detector=is_detector,
            )
        )
    return found


def measure_other_models(subjects: Sequence[Subject], pictures: Sequence[bytes], *, pace: Pace, logs: Path) -> None:
    """Prints the table. Raises Unfit."""
    bare_rates: dict[str, list[float]] = {}
    tallies: dict[tuple[str, int], list[Tally]] = {}
    for number in range(pace.rounds):
        for subject in subjects:
            name = subject.bench.architecture
            with subject.loop_ready() as ready:
                rate, _ = ready.work(seconds=pace.seconds, batch=1 if subject.is_detector else subject.loop.batch)
                bare_rates.setdefault(name, []).append(rate)
            requests = subject.server.raw(pictures)
            with started(subject.server, pictures[0], logs) as running:
                run(closed_loop(running.child.port, requests, concurrency=16, seconds=pace.warm_s))
                for at in _CONCURRENCIES:
                    tally = run(
                        closed_loop(
                            running.child.port, requests, concurrency=at, seconds=pace.seconds, first=number * 17
                        )
                    )
                    tallies.setdefault((name, at), []).append(tally)
    print("### Other models, raw bodies\n")
    rows = []
    for subject in subjects:
        name = subject.bench.architecture
        rates = [[tally.images_per_second for tally in tallies[name, at]] for at in _CONCURRENCIES]
        errors = sum(tally.errors for at in _CONCURRENCIES for tally in tallies[name, at])
        alone_ms = median([tally.quantile_ms(0.5) for tally in tallies[name, 1]])
        ratio = max(map(median, rates)) / median(bare_rates[name])
        rows.append(
            [
                f"`{name}`",
                f"{spread(bare_rates[name])} ({subject.without_http})",
                spread(rates[0]),
                f"{alone_ms:.0f} ms",
                spread(rates[1]),
                f"{ratio:.2f}",
                str(errors),
            ]
        )
    print_table(["model", "without HTTP, images/s", "Fovea c=1", "its p50", "c=16", "best ratio", "errors"], rows)
