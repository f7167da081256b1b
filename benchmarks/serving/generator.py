"""What the load generator itself costs: against a server that only counts bytes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from app.processes.address import free_port
from benchmarks.serving.load import closed_loop, raw_request, run
from benchmarks.serving.peer_environment import ROOT
from benchmarks.serving.processes import child
from benchmarks.serving.tables import print_table
from benchmarks.serving.throughput import CONCURRENCIES


def measure_generator(pictures: Sequence[bytes], *, seconds: float, logs: Path) -> None:
    """Prints the table."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.serving.counting_server", str(port)]
    requests = [raw_request("/count", picture) for picture in pictures]
    rows = []
    with child(command, {"PYTHONPATH": str(ROOT)}, port=port, log=logs / "counting.log") as counting:
        counting.first_answer("/count", "image/jpeg", pictures[0])
        for concurrency in CONCURRENCIES:
            tally = run(closed_loop(port, requests, concurrency=concurrency, seconds=seconds))
            cost_ms = tally.client_cpu_s * 1000 / max(1, tally.answered)
            rows.append((str(concurrency), f"{tally.images_per_second:.0f}", f"{cost_ms:.3f}", str(tally.errors)))
    print("### The load generator, against a server that counts bytes\n")
    print_table(["concurrency", "requests/s", "its own CPU, ms per request", "errors"], rows)
