"""Twenty models where five fit: do the loads of some slow down the requests of others?"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

from benchmarks.serving.load import Tally, closed_loop, raw_request, run
from benchmarks.serving.servers import FOVEA_MANY_MODELS_ENV, MODELS_IN_MEMORY, FoveaStart, path_of, started
from benchmarks.serving.tables import print_table

MODELS = 20
_SEED = 0


def model_names() -> list[str]:
    """What they are called in the registry."""
    return [f"bench-{number:02d}" for number in range(MODELS)]


def measure_many_models(fovea: FoveaStart, pictures: Sequence[bytes], *, seconds: float, logs: Path) -> None:
    """Prints the table. Raises Unfit.

    One client for each model that stays in memory; the fifth place is for one more client, which asks first for a model
    that stays too, then for one of the others by chance, so that nearly each of its requests loads and evicts.
    """
    names = model_names()
    staying, going = names[: MODELS_IN_MEMORY - 1], names[MODELS_IN_MEMORY - 1 :]
    chance = random.Random(_SEED)

    def asks(models: Sequence[str], count: int) -> list[bytes]:
        chosen = [(path_of(chance.choice(models)), chance.choice(pictures)) for _ in range(count)]
        return [raw_request(path, picture) for path, picture in chosen]

    server = fovea.serving(names[0], env=FOVEA_MANY_MODELS_ENV)
    with started(server, pictures[0], logs) as running:
        port = running.child.port
        mine = [asks([name], 32) for name in staying]
        for requests in (*mine, asks(going[:1], 1)):  # all in memory before anything is measured
            run(closed_loop(port, requests, concurrency=1, seconds=0.5))
        while running.child.is_building():  # of those; what is built for the others, while they come and go, counts
            pass

        async def together(fifth: list[bytes]) -> tuple[list[Tally], Tally]:
            *others, last = await asyncio.gather(
                *(closed_loop(port, requests, concurrency=1, seconds=seconds) for requests in (*mine, fifth))
            )
            return others, last

        calm, calm_fifth = run(together(asks(going[:1], 32)))
        loading, loading_fifth = run(together(asks(going, 512)))
        before_mib = running.child.pss_mib()
        by_chance = run(closed_loop(port, asks(names, 512), concurrency=8, seconds=seconds))
        after_mib = running.child.pss_mib()
    without, during = (_merged(tallies) for tallies in (calm, loading))
    print(f"### {MODELS} models (resnet18), {MODELS_IN_MEMORY} in memory, raw bodies\n")
    rows = [
        ("p50 of the others without loads, ms", f"{without.quantile_ms(0.5):.1f}", ""),
        ("p50 of the others during loads, ms", f"{during.quantile_ms(0.5):.1f}", ""),
        ("ratio", f"{during.quantile_ms(0.5) / without.quantile_ms(0.5):.2f}", "<= 2"),
        (
            "p99 of the others without, during, ms",
            f"{without.quantile_ms(0.99):.0f}, {during.quantile_ms(0.99):.0f}",
            "",
        ),
        ("the fifth client, median, staying, loading, ms", _pair(calm_fifth, loading_fifth), ""),
        ("traffic by chance over all, 8 clients, images/s", f"{by_chance.images_per_second:.1f}", ""),
        ("its p50, p99, ms", f"{by_chance.quantile_ms(0.5):.0f}, {by_chance.quantile_ms(0.99):.0f}", ""),
        ("errors", str(sum(tally.errors for tally in (without, during, calm_fifth, loading_fifth, by_chance))), "0"),
        ("PSS before, after the traffic by chance", f"{before_mib:.0f} MiB, {after_mib:.0f} MiB", ""),
    ]
    print_table(["what", "measured", "target"], rows)


def _merged(tallies: Sequence[Tally]) -> Tally:
    whole = Tally(seconds=tallies[0].seconds)
    for tally in tallies:
        whole.in_time += tally.in_time
        whole.failures += tally.failures
        for status, latencies in tally.latencies_s.items():
            whole.latencies_s[status] += latencies
    return whole


def _pair(first: Tally, second: Tally) -> str:
    return f"{first.quantile_ms(0.5):.0f}, {second.quantile_ms(0.5):.0f} ({second.in_time} requests)"
