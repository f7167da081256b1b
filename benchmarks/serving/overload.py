"""Ten times more than fits: how much is still answered, how refusals look, and what is left afterwards."""

from __future__ import annotations

import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from benchmarks.serving.load import OK, UNAVAILABLE, Tally, closed_loop, open_loop, quantile, run
from benchmarks.serving.processes import PeakMemory
from benchmarks.serving.servers import Server, started
from benchmarks.serving.tables import print_table
from benchmarks.serving.threads import ThreadTimes

_TIMES = 10
_ALONE_REQUESTS = 20


def measure_overload(server: Server, pictures: Sequence[bytes], *, seconds: float, best_s: float, logs: Path) -> None:
    """Prints the table. best_s: how long the best rate, without overload, is measured. Raises Unfit."""
    requests = server.raw(pictures)
    with started(server, pictures[0], logs) as running:
        port, pid = running.child.port, running.child.process.pid
        run(closed_loop(port, requests, concurrency=16, seconds=max(1.0, best_s / 2)))
        alone_ms = _alone_ms(port, requests)
        best, at_best = max(
            (_with_threads(pid, closed_loop(port, requests, concurrency=at, seconds=best_s)) for at in (16, 64)),
            key=lambda measured: measured[0].goodput,
        )
        before_mib = running.child.pss_mib()
        with PeakMemory(pid) as memory:
            rate = _TIMES * best.images_per_second
            tally, during = _with_threads(pid, open_loop(port, requests, requests_per_second=rate, seconds=seconds))
        first_ms = _alone_ms(port, requests[:1])
        after_mib = running.child.pss_mib()
    print(f"### {_TIMES} times more than fits, for {seconds:g} s, raw bodies, from {time.strftime('%H:%M')}\n")
    print_table(["what", "measured", "target"], _rows(tally, best, alone_ms, first_ms))
    print("CPU of the server, cores: event loops, other threads; core-ms an answer of the other threads\n")
    print(f"- best: {at_best}\n- overload: {during}")
    print()
    print(
        f"PSS {before_mib:.0f} MiB before, at most {memory.peak_mib:.0f} MiB during, {after_mib:.0f} MiB after.\n",
        flush=True,
    )


def _with_threads(pid: int, load: Coroutine[Any, Any, Tally]) -> tuple[Tally, str]:
    """What came of the load, and what the server's threads spent on it, the answers after its end included."""
    before, began_at = ThreadTimes.below(pid), time.perf_counter()
    tally = run(load)
    spent, took_s = ThreadTimes.below(pid).since(before), time.perf_counter() - began_at
    answers = max(1, len(tally.latencies_s[OK]))
    cores = f"{spent.event_loops_s / took_s:.2f}, {spent.others_s / took_s:.2f}"
    return tally, f"{cores}; {spent.others_s / answers * 1000:.2f}"


def _rows(tally: Tally, best: Tally, alone_ms: float, first_ms: float) -> list[tuple[str, str, str]]:
    others = {status: len(values) for status, values in tally.latencies_s.items() if status not in (OK, UNAVAILABLE)}
    refusals = len(tally.latencies_s[UNAVAILABLE])
    sent = tally.answered + tally.failures.total()
    answered = ", ".join(f"p{share * 100:.0f} {tally.quantile_ms(share):.0f}" for share in (0.5, 0.99))
    refused = ", ".join(
        f"p{share * 100:g} {tally.quantile_ms(share, UNAVAILABLE):.1f}" for share in (0.5, 0.9, 0.99, 1.0)
    )
    lag = ", ".join(f"p{share * 100:g} {quantile(tally.lags_s, share) * 1000:.1f}" for share in (0.5, 0.9, 0.99, 1.0))
    best_cpu = best.client_cpu_s / best.seconds
    return [
        ("best without overload, answers/s", f"{best.images_per_second:.1f}", ""),
        ("sent, requests/s", f"{sent / tally.seconds:.1f}, and {tally.unsent} for which no connection was free", ""),
        ("goodput, answers/s", f"{tally.goodput:.1f}", ""),
        ("goodput, of the best", f"{tally.goodput / best.images_per_second:.2f}", ">= 0.90"),
        ("refused with 503", f"{refusals}, {tally.bare_refusals} of them without Retry-After", "none without"),
        ("refusals, ms", refused, "p99 < 50"),
        ("answers, ms", answered, ""),
        ("the load generator's own lag, ms, within what refusals take", lag, ""),
        ("its CPU, cores", f"{tally.client_cpu_s / tally.seconds:.2f}; at the best {best_cpu:.2f}", ""),
        ("other statuses, broken connections", f"{others or 'none'}, {dict(tally.failures) or 'none'}", "none"),
        ("alone before, median; first request after, ms", f"{alone_ms:.1f}; {first_ms:.1f}", "as fast"),
    ]


def _alone_ms(port: int, requests: Sequence[bytes]) -> float:
    """Median of so many requests, one after the other."""
    count = min(_ALONE_REQUESTS, len(requests))
    latencies: list[float] = []
    for number in range(count):
        tally = run(closed_loop(port, requests, concurrency=1, seconds=0.001, first=number))
        latencies += tally.latencies_s[OK]
    return sorted(latencies)[len(latencies) // 2] * 1000 if latencies else float("nan")
