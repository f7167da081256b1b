"""One request at a time: what HTTP and the engine add to the same work in process, by turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.serving.ceiling import Bench, bare
from benchmarks.serving.load import OK, closed_loop, quantile, run
from benchmarks.serving.servers import Server, started
from benchmarks.serving.tables import print_table


def measure_alone(
    servers: Mapping[int, Server],
    pictures: Sequence[bytes],
    *,
    bench: Bench,
    backend: str,
    turns: int,
    seconds: float,
    logs: Path,
) -> None:
    """Prints the table: Fovea at concurrency 1, and the fastest backend in process on as many threads.

    servers: Fovea, by how many threads one of its processes has. seconds: of a turn. Raises Unfit.
    """
    print("### One request at a time, raw body\n")
    rows: list[tuple[str, str, str, str]] = []
    for threads, server in servers.items():
        http_ms: list[float] = []
        bare_ms: list[float] = []
        with (
            started(server, pictures[0], logs) as running,
            bare(bench, backend, processes=1, workers=1, intra_threads=threads, batches=(1,)) as in_process,
        ):
            requests = server.raw(pictures)
            run(closed_loop(running.child.port, requests, concurrency=1, seconds=seconds))
            for turn in range(turns):  # the machine's speed drifts
                tally = run(closed_loop(running.child.port, requests, concurrency=1, seconds=seconds, first=turn * 7))
                http_ms += [value * 1000 for value in tally.latencies_s[OK]]
                bare_ms += in_process.work(seconds=seconds, batch=1)[1]
        http, alone = quantile(http_ms, 0.5), quantile(bare_ms, 0.5)
        rows.append((str(threads), f"{http:.1f}", f"{alone:.1f}", f"{http - alone:.1f}"))
    print_table(
        ["threads per process", "Fovea over HTTP, p50, ms", f"{backend} in process, ms", "more (target: <= 2)"], rows
    )
