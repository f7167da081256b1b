"""What a machine that changes its speed within seconds can still tell: everything runs, and is asked by turns.

The loop without HTTP, Fovea and its peers stay started; each works for a short stretch and rests while the others do.
The loop works before and after every stretch of a server, which is compared with the mean of both; a stretch has a
ramp, or what is decoded ahead of the network when it ends would be lost for its rate. Peers are
stopped (SIGSTOP) while they rest: some of them take a core even when nobody asks them.
Figures are medians of all turns, with the quartiles beside.
"""

from __future__ import annotations

import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from benchmarks.serving.ceiling import Bench, Loop, loop_on_all_cores
from benchmarks.serving.load import closed_loop, quantile, run
from benchmarks.serving.processes import Unfit
from benchmarks.serving.servers import FOVEA, NAIVE, Server, Started, started
from benchmarks.serving.tables import median, print_table
from benchmarks.serving.threads import ThreadTimes
from benchmarks.serving.throughput import EIGHT, FORM, IMAGES, RAW

_CONCURRENCY = 16
_WARM_S = 4.0
_RAMP_S = 0.8  # 16 requests of 8 images are more than half a second's work
_LOOP = "the loop without HTTP"


def measure_ratios(
    server: Server,
    peers: Sequence[Server],
    pictures: Sequence[bytes],
    *,
    bench: Bench,
    loop: Loop,
    turns: int,
    seconds: float,
    logs: Path,
) -> None:
    """Prints the ratios that there are targets for. seconds: of one stretch. Raises Unfit if Fovea is."""
    with ExitStack() as stack:
        work = stack.enter_context(loop_on_all_cores(bench, loop.backend, loop.style)).work
        asked: dict[str, Callable[[], float]] = {}
        spent: defaultdict[str, list[_Spent]] = defaultdict(list)
        for each in [server, *peers]:
            try:
                running = stack.enter_context(started(each, pictures[0], logs))
            except Unfit as error:
                if each is server:
                    raise
                print(f"Left out: {each.title}: {error}\n")
                continue
            shapes = (RAW, FORM, EIGHT) if each is server else (FORM,)
            for shape in shapes:
                title = f"{each.title}, {shape}"
                asked[title] = _rate_of(each, running, shape, pictures, seconds, spent[title])
            if each is not server:
                rests = stack.enter_context(_Rests(running))
                asked[title] = rests.between(asked[title])
        rates: defaultdict[str, list[float]] = defaultdict(list)  # images per second
        shares: defaultdict[str, list[float]] = defaultdict(list)  # of the loop's
        before = work(seconds=seconds, batch=loop.batch)[0]
        for turn in range(turns):
            for title in list(asked) if turn % 2 else reversed(list(asked)):
                rate = asked[title]()
                after = work(seconds=seconds, batch=loop.batch)[0]
                rates[_LOOP].append(after)
                rates[title].append(rate)
                shares[title].append(2 * rate / (before + after))
                before = after
            print(f"turn {turn + 1} of {turns}: done", file=sys.stderr, flush=True)
    _print(rates, shares)
    _print_spent({title: spent[title] for title in asked if title.startswith(FOVEA)})


@dataclass(frozen=True, kw_only=True)
class _Spent:
    """Core-milliseconds per image."""

    event_loops: float
    other_threads: float
    client: float


def _rate_of(
    server: Server,
    started_server: Started,
    shape: str,
    pictures: Sequence[bytes],
    seconds: float,
    spent: list[_Spent],
) -> Callable[[], float]:
    pid, port = started_server.child.process.pid, started_server.child.port
    images = IMAGES[shape]
    requests = server.raw(pictures) if shape == RAW else server.forms(pictures, images_per_request=images)

    def rate(for_s: float = seconds) -> float:
        before = ThreadTimes.below(pid)
        load = closed_loop(
            port, requests, concurrency=_CONCURRENCY, seconds=for_s, images_per_request=images, ramp_s=_RAMP_S
        )
        tally = run(load)
        times, answered = ThreadTimes.below(pid).since(before), tally.answered * images
        ms = 1000 / answered
        spent.append(
            _Spent(
                event_loops=times.event_loops_s * ms, other_threads=times.others_s * ms, client=tally.client_cpu_s * ms
            )
        )
        return tally.images_per_second

    rate(_WARM_S)
    spent.clear()
    return rate


class _Rests:
    """A server that is stopped unless it is asked."""

    def __init__(self, server: Started) -> None:
        self._root = psutil.Process(server.child.process.pid)

    def __enter__(self) -> Self:
        self._signal(signal.SIGSTOP)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._signal(signal.SIGCONT)  # or it would not end

    def between(self, ask: Callable[[], float]) -> Callable[[], float]:
        """`ask`, while it goes on."""

        def awake() -> float:
            self._signal(signal.SIGCONT)
            try:
                return ask()
            finally:
                self._signal(signal.SIGSTOP)

        return awake

    def _signal(self, number: signal.Signals) -> None:
        for process in [self._root, *self._root.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


def _print(rates: dict[str, list[float]], shares: dict[str, list[float]]) -> None:
    print("### By turns\n")
    rows = [(_LOOP, f"{median(rates[_LOOP]):.1f}", "", "")]
    rows += [(title, f"{median(rates[title]):.1f}", *_middle(own)) for title, own in shares.items()]
    print_table(["what", "images/s", "of the loop without HTTP", "quartiles"], sorted(rows, key=lambda row: row[0]))
    raw, form, eight = (shares[f"{FOVEA}, {shape}"] for shape in (RAW, FORM, EIGHT))
    peers = {title: own for title, own in shares.items() if not title.startswith(FOVEA)}
    targets = [
        ("raw body at c=16, of the loop without HTTP", _middle(raw), ">= 0.90"),
        ("multipart at c=16, of the loop without HTTP", _middle(form), ">= 0.86"),
        ("8 images per request at c=16, of the loop without HTTP", _middle(eight), ">= 0.95"),
    ]
    if peers:
        best = max(peers, key=lambda title: median(peers[title]))
        targets.append((f"multipart at c=16, times the best peer ({best})", _ratio(form, peers[best]), ">= 1.35"))
    naive = peers.get(f"{NAIVE}, stock, {FORM}")
    if naive:
        targets.append(("multipart at c=16, times the naive server", _ratio(form, naive), ">= 8"))
    print("### Against the targets, by turns\n")
    print_table(
        ["what", "measured", "quartiles", "target"], [(what, *middle, target) for what, middle, target in targets]
    )


def _print_spent(spent: dict[str, list[_Spent]]) -> None:
    print("### Where Fovea's time goes, core-ms per picture\n")
    print_table(
        ["what", "event loops", "other threads: decoding, network", "the load generator"],
        [
            (
                title,
                *(
                    f"{median([getattr(each, part) for each in stretches]):.2f}"
                    for part in ("event_loops", "other_threads", "client")
                ),
            )
            for title, stretches in spent.items()
        ],
    )


def _ratio(own: Sequence[float], others: Sequence[float]) -> tuple[str, str]:
    return _middle([mine / other for mine, other in zip(own, others, strict=True)])


def _middle(values: Sequence[float]) -> tuple[str, str]:
    """The median, and the quartiles."""
    return f"{median(values):.2f}", f"{quantile(values, 0.25):.2f} to {quantile(values, 0.75):.2f}"
