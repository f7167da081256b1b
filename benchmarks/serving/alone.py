"""One request at a time: what HTTP and the engine add to the same work in process, by turns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.serving.ceiling import Bench, bare
from benchmarks.serving.load import OK, closed_loop, quantile, run
from benchmarks.serving.machine import cores
from benchmarks.serving.servers import Server, started
from benchmarks.serving.tables import print_table


def measure_alone(
    server: Server, pictures: Sequence[bytes], *, bench: Bench, backend: str, turns: int, seconds: float, logs: Path
) -> None:
    """Prints the table: Fovea at concurrency 1, and the fastest backend in process on one thread and on all.

    seconds: of a turn. Raises Unfit.
    """
    http_ms: list[float] = []
    one_ms: list[float] = []
    all_ms: list[float] = []
    with (
        started(server, pictures[0], logs) as running,
        bare(bench, backend, processes=1, workers=1, intra_threads=1, batches=(1,)) as on_one,
        bare(bench, backend, processes=1, workers=1, intra_threads=cores(), batches=(1,)) as on_all,
    ):
        requests = server.raw(pictures)
        run(closed_loop(running.child.port, requests, concurrency=1, seconds=seconds))
        for turn in range(turns):  # the machine's speed drifts
            tally = run(closed_loop(running.child.port, requests, concurrency=1, seconds=seconds, first=turn * 7))
            http_ms += [value * 1000 for value in tally.latencies_s[OK]]
            one_ms += on_one.work(seconds=seconds, batch=1)[1]
            all_ms += on_all.work(seconds=seconds, batch=1)[1]
    http, one, every = (quantile(values, 0.5) for values in (http_ms, one_ms, all_ms))
    print("### One request at a time, raw body\n")
    print_table(
        ["what", "p50, ms"],
        [
            ("Fovea over HTTP", f"{http:.1f}"),
            (f"in process, {backend}, one thread", f"{one:.1f}"),
            (f"in process, {backend}, {cores()} threads", f"{every:.1f}"),
            ("what HTTP and the engine add to the faster of both (target: <= 2)", f"{http - min(one, every):.1f}"),
        ],
    )
