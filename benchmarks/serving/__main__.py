"""`python -m benchmarks.serving ARCHIVE`: what serving costs, as Markdown; `make bench-serve ARCHIVE=photos.zip`.

ARCHIVE is a zip of photos as it is posted to /v1/datasets; those of about 500 x 375 px are sent to every server. The
peers are installed into an environment of their own, in a temporary directory or where --peers says. Needs Linux.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from benchmarks.serving import machine
from benchmarks.serving.alone import measure_alone
from benchmarks.serving.ceiling import Bench, Loop, find_fastest
from benchmarks.serving.cold_start import measure_cold_start, store_backends
from benchmarks.serving.generator import measure_generator
from benchmarks.serving.home import make_home
from benchmarks.serving.many_models import measure_many_models, model_names
from benchmarks.serving.other_models import measure_other_models, subjects
from benchmarks.serving.overload import measure_overload
from benchmarks.serving.peer_environment import make_peer_environment
from benchmarks.serving.pictures import read_pictures
from benchmarks.serving.ratios import measure_ratios
from benchmarks.serving.servers import BACKENDS_STORED_WITHIN_S, FOVEA_OVERLOAD_ENV, FoveaStart, Server, peers
from benchmarks.serving.throughput import Pace, measure, print_results

MAIN_MODEL, MAIN_ARCHITECTURE = "resnet18-bench", "resnet18"
OTHER_MODELS: Final = {
    "resnet50-bench": "resnet50",
    "ssdlite320_mobilenet_v3_large-bench": "ssdlite320_mobilenet_v3_large",
}
QUICK: Final = Pace(seconds=3.0, warm_s=3.0, rounds=1)
FULL: Final = Pace(seconds=10.0, warm_s=10.0, rounds=3)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What all scenarios share."""

    options: argparse.Namespace
    pace: Pace
    pictures: Sequence[bytes]
    fovea: FoveaStart
    bench: Bench
    logs: Path

    @property
    def server(self) -> Server:
        """Fovea."""
        return self.fovea.serving(MAIN_MODEL)

    @property
    def short_s(self) -> float:
        return min(3.0, self.pace.seconds)


def main() -> None:
    """Reads the command line, makes the models, measures, prints."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that no server is left behind
    options = _options()
    shown = QUICK if options.quick else FULL
    pace = Pace(
        seconds=options.seconds or shown.seconds,
        warm_s=options.warm_seconds or shown.warm_s,
        rounds=options.rounds or shown.rounds,
    )
    pictures = read_pictures(options.archive)
    _print_head(options, pace, pictures)
    with tempfile.TemporaryDirectory(prefix="fovea-bench-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        (directory / "pictures").mkdir()
        for number, picture in enumerate(pictures):
            (directory / "pictures" / f"{number:04d}.jpg").write_bytes(picture)
        many = model_names() if "many-models" in options.only else []
        home = directory / "home"
        make_home(
            home,
            options.archive,
            {MAIN_MODEL: MAIN_ARCHITECTURE, **OTHER_MODELS, **dict.fromkeys(many, MAIN_ARCHITECTURE)},
        )
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(directory / "inductor")  # for all children
        env = dict(pair.split("=", 1) for pair in options.fovea_env)
        python = make_peer_environment((options.peers or directory / "peers").resolve())
        _measure(
            Run(
                options=options,
                pace=pace,
                pictures=pictures,
                fovea=FoveaStart(home=home, flags=shlex.split(options.fovea_flags), env=env),
                bench=Bench(
                    python=python,
                    pictures=directory / "pictures",
                    architecture=MAIN_ARCHITECTURE,
                    weights=home / "registry" / MAIN_MODEL / "1" / "state_dict.safetensors",
                ),
                logs=directory,
            )
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path, help="a zip of photos")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=SCENARIOS)
    parser.add_argument("--servers", nargs="+", default=[], help="parts of peers' names; none: all")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--turns", type=int, help="of ratios: 20, or with --quick 5")
    parser.add_argument("--seconds", type=float, help="of one stretch of load")
    parser.add_argument("--warm-seconds", type=float)
    parser.add_argument("--overload-seconds", type=float, help="60, or with --quick 10")
    parser.add_argument("--backend", help="of the tuned peers and the loop without HTTP, in place of the fastest")
    parser.add_argument("--peers-backend", help="of the tuned peers alone")
    parser.add_argument("--stored-within", type=float, default=BACKENDS_STORED_WITHIN_S, metavar="SECONDS")
    parser.add_argument("--fovea-flags", default="", help="more for `fovea serve`: '--processes 2'")
    parser.add_argument("--fovea-env", nargs="+", default=[], metavar="NAME=VALUE")
    parser.add_argument("--peers", type=Path, help="directory of the peers' environment, kept for the next run")
    return parser.parse_args()


def _print_head(options: argparse.Namespace, pace: Pace, pictures: Sequence[bytes]) -> None:
    mean_kb = sum(map(len, pictures)) / len(pictures) / 1000
    print("## What serving costs\n")
    print("\n".join(machine.describe()))
    print(f"- {len(pictures)} JPEGs of {options.archive.name}, mean {mean_kb:.0f} kB; random weights of a fixed seed")
    print(
        f"- {pace.rounds} round(s) by turns, {pace.seconds:g} s a cell after {pace.warm_s:g} s to warm up; medians, ",
        end="",
    )
    print("in brackets the least and the most; the load generator on the same cores; nothing is pinned")
    print(
        f"- Fovea: `fovea serve {options.fovea_flags}`".rstrip(" `") + f"` {' '.join(options.fovea_env)}\n", flush=True
    )


def _measure(run: Run) -> None:
    wanted = run.options.only
    if "generator" in wanted:
        measure_generator(run.pictures, seconds=run.short_s, logs=run.logs)
    if wanted == ["generator"]:
        return
    loop = _loop(run)
    models = [MAIN_MODEL, *(OTHER_MODELS if "others" in wanted else ())]
    verbs = {name: "detect" if "ssdlite" in name else "classify" for name in models}
    store_backends(run.fovea, verbs, run.pictures, within_s=run.options.stored_within, logs=run.logs)
    for name, measure_it in MEASURED_WITH_BACKENDS.items():
        if name in wanted:
            measure_it(run, loop)


def _throughput(run: Run, loop: Loop) -> None:
    servers = [*_peers(run, loop), run.server]
    results = measure(servers, run.pictures, bench=run.bench, loop=loop, pace=run.pace, logs=run.logs)
    print_results(results, loop, MAIN_ARCHITECTURE)


def _ratios(run: Run, loop: Loop) -> None:
    measure_ratios(
        run.server,
        _peers(run, loop),
        run.pictures,
        bench=run.bench,
        loop=loop,
        turns=run.options.turns or (5 if run.options.quick else 20),
        seconds=min(2.0, run.pace.seconds),
        logs=run.logs,
    )


def _alone(run: Run, loop: Loop) -> None:
    one_process = replace(run.fovea, flags=[*run.fovea.flags, "--processes", "1"])
    measure_alone(
        {1: run.server, machine.cores(): one_process.serving(MAIN_MODEL)},
        run.pictures,
        bench=run.bench,
        backend=loop.backend,
        turns=3 + run.pace.rounds,
        seconds=run.short_s,
        logs=run.logs,
    )


def _others(run: Run, loop: Loop) -> None:
    of_others = subjects(run.fovea, OTHER_MODELS, bench=run.bench, loop=loop)
    measure_other_models(of_others, run.pictures, pace=run.pace, logs=run.logs)


def _overload(run: Run, _: Loop) -> None:
    measure_overload(
        run.fovea.serving(MAIN_MODEL, env=FOVEA_OVERLOAD_ENV),
        run.pictures,
        seconds=run.options.overload_seconds or (10 if run.options.quick else 60),
        best_s=run.pace.seconds,
        logs=run.logs,
    )


def _many_models(run: Run, _: Loop) -> None:
    measure_many_models(run.fovea, run.pictures, seconds=2 * run.pace.seconds, logs=run.logs)


def _cold_start(run: Run, _: Loop) -> None:
    measure_cold_start(
        run.fovea,
        MAIN_MODEL,
        run.pictures,
        rounds=run.pace.rounds,
        stored_within_s=run.options.stored_within,
        logs=run.logs,
    )


MEASURED_WITH_BACKENDS: Final[dict[str, Callable[[Run, Loop], None]]] = {
    "throughput": _throughput,
    "ratios": _ratios,
    "alone": _alone,
    "others": _others,
    "overload": _overload,
    "many-models": _many_models,
    "cold-start": _cold_start,
}
SCENARIOS: Final = ("generator", *MEASURED_WITH_BACKENDS)


def _peers(run: Run, loop: Loop) -> list[Server]:
    """Those that are asked for, tuned with the fastest backend or the one asked for."""
    found = peers(
        run.bench.python,
        architecture=MAIN_ARCHITECTURE,
        weights=run.bench.weights,
        pictures=run.bench.pictures,
        backend=run.options.peers_backend or loop.backend,
    )
    parts = run.options.servers
    return [peer for peer in found if not parts or any(part in peer.title for part in parts)]


def _loop(run: Run) -> Loop:
    """The fastest without HTTP, measured only if something is compared with it."""
    if run.options.backend:
        return Loop(backend=run.options.backend, style="processes", batch=4)
    if not {"throughput", "ratios", "alone", "others"} & set(run.options.only):
        return Loop(backend="channels_last", style="processes", batch=4)
    return find_fastest(run.bench, seconds=run.short_s, rounds=min(2, run.pace.rounds))


if __name__ == "__main__":
    main()
