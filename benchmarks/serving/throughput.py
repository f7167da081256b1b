"""Images a second, latencies, errors and memory of every server, in rounds by turns."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.serving.ceiling import Bench, Loop, loop_on_all_cores
from benchmarks.serving.load import Tally, closed_loop, run
from benchmarks.serving.processes import PeakMemory, Unfit
from benchmarks.serving.servers import FOVEA, Server, label_of, started
from benchmarks.serving.tables import median, print_table, spread

CONCURRENCIES: Final = (1, 16, 64)
FORM, RAW, EIGHT = "multipart", "raw body", "8 images per request"
IMAGES = {FORM: 1, RAW: 1, EIGHT: 8}


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long things are measured."""

    seconds: float  # of one stretch
    warm_s: float
    rounds: int


@dataclass(kw_only=True)
class Results:
    """Of all rounds."""

    ceiling: list[float] = field(default_factory=list)  # images per second
    tallies: defaultdict[tuple[str, str, int], list[Tally]] = field(default_factory=lambda: defaultdict(list))
    peaks_mib: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    starts_s: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    labels: dict[str, int] = field(default_factory=dict)
    unfit: dict[str, str] = field(default_factory=dict)


def measure(
    servers: Sequence[Server], pictures: Sequence[bytes], *, bench: Bench, loop: Loop, pace: Pace, logs: Path
) -> Results:
    """Every server from its start to its end, one after the other, `pace.rounds` times, and the loop between them.

    A peer that does not work is left out with its reason. Raises Unfit if Fovea does not.
    """
    results = Results()
    for number in range(pace.rounds):
        with loop_on_all_cores(bench, loop.backend, loop.style) as ready:
            rate, _ = ready.work(seconds=pace.seconds, batch=loop.batch)
            results.ceiling.append(rate)
        turn = number % len(servers)
        for server in [*servers[turn:], *servers[:turn]]:
            if server.title in results.unfit:
                continue
            try:
                _measure_one(server, pictures, pace=pace, first=number * 17, logs=logs, results=results)
            except Unfit as error:
                if server.name == FOVEA:
                    raise
                results.unfit[server.title] = str(error)
            print(f"round {number + 1}: {server.title}: done", file=sys.stderr, flush=True)
    return results


def _measure_one(
    server: Server, pictures: Sequence[bytes], *, pace: Pace, first: int, logs: Path, results: Results
) -> None:
    requests = {FORM: server.forms(pictures)}
    if server.name == FOVEA:
        requests[RAW] = server.raw(pictures)
        requests[EIGHT] = server.forms(pictures, images_per_request=IMAGES[EIGHT])
    with (
        started(server, pictures[0], logs) as running,
        PeakMemory(running.child.process.pid) as memory,
    ):
        results.starts_s[server.title].append(running.first_answer_s)
        results.labels[server.title] = label_of(running.answer)
        port = running.child.port
        run(closed_loop(port, requests[FORM], concurrency=16, seconds=pace.warm_s))
        for shape, asked in requests.items():
            for concurrency in CONCURRENCIES:
                tally = run(
                    closed_loop(
                        port,
                        asked,
                        concurrency=concurrency,
                        seconds=pace.seconds,
                        images_per_request=IMAGES[shape],
                        first=first,
                    )
                )
                results.tallies[server.title, shape, concurrency].append(tally)
    results.peaks_mib[server.title].append(memory.peak_mib)


def print_results(results: Results, loop: Loop, architecture: str) -> None:
    """The table of the rounds."""
    print(f"### Over HTTP: {architecture}\n")
    headers = ["server", "body"]
    for concurrency in CONCURRENCIES:
        headers += [f"c={concurrency}, images/s", "p50 / p90 / p99, ms"]
    rows = [[f"no HTTP: {loop}", "", *[spread(results.ceiling), ""] * len(CONCURRENCIES), "", "", ""]]
    for title, shape in dict.fromkeys((title, shape) for title, shape, _ in results.tallies):
        row = [title, shape]
        errors: Counter[str] = Counter()
        for concurrency in CONCURRENCIES:
            tallies = results.tallies[title, shape, concurrency]
            for tally in tallies:
                errors += tally.error_kinds
            row.append(spread([tally.images_per_second for tally in tallies]))
            shares = [median([tally.quantile_ms(share) for tally in tallies]) for share in (0.5, 0.9, 0.99)]
            row.append(" / ".join(f"{value:.0f}" if value >= 10 else f"{value:.1f}" for value in shares))
        row += [
            ", ".join(f"{count} x {kind}" for kind, count in errors.items()) or "0",
            f"{max(results.peaks_mib[title]):.0f} MiB",
            f"{median(results.starts_s[title]):.1f} s",
        ]
        rows.append(row)
    print_table([*headers, "errors", "peak PSS", "start to first answer"], rows)
    for title, reason in results.unfit.items():
        print(f"Left out: {title}: {reason}\n")
    if len(set(results.labels.values())) > 1:
        print(f"They do not agree on the first picture: {results.labels}\n")
    at_64 = results.tallies[FOVEA, FORM, 64]
    ratio = median([tally.quantile_ms(0.99) / tally.quantile_ms(0.5) for tally in at_64])
    print(f"p99 over p50 at c=64, multipart: {ratio:.2f} (target: <= 2.5)\n")
