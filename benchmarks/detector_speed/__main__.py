"""`python -m benchmarks.detector_speed`: torchvision's detectors as they are, taken apart, and as they are served.

Whole detectors from random weights, images to boxes, all ways by turns: images per second (median), how many times
torchvision's in float32 (median of each round's ratio), and where the time goes. torchvision's module runs in a process
as it is found, ours in one whose OpenMP threads sleep when they have nothing to do, as in `fovea serve`: each has the
policy that it is faster with.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

_DETECTORS: Final = [
    "ssdlite320_mobilenet_v3_large",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_resnet50_fpn",
]
_COMPILERS: Final = ["openvino", "openvino_int8"]
_BASE: Final = "torchvision eager"
_ENDS_WITHIN_S = 20.0
_SERVED: Final = {"OMP_WAIT_POLICY": "PASSIVE"}  # as app/cli/serve.py sets it

Answers = defaultdict[str, list[dict[str, Any]]]  # of each round, by way


def main() -> None:
    """Reads the command line, measures, prints."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.detector_speed", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("detectors", nargs="*", default=_DETECTORS)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--compilers", nargs="*", default=_COMPILERS, choices=_COMPILERS)
    parser.add_argument("--precision", choices=["auto", "float32"], default="auto", help="of what is not int8")
    parser.add_argument("--cpu-time", action="store_true", help="of the process, where others use the machine too")
    options = parser.parse_args()
    what = "CPU time" if options.cpu_time else "wall clock"
    print(f"{options.threads} threads, {options.rounds} rounds, {what}, load {os.getloadavg()[0]:.1f}")
    for name in options.detectors:
        with ExitStack() as stack:
            ways: dict[str, Ways] = {}
            for env, ours in (({}, False), (_SERVED, True)):
                child = stack.enter_context(_started(name, options, env, ours=ours))
                ways.update(dict.fromkeys(child.labels, child))
            if name == options.detectors[0]:
                print(f"torch {child.torch}; compiled networks compute in {child.precision}, or int8\n")
                print("| detector | batch | way | images/s | x torchvision | where the time goes, ms |")
                print("|---|---|---|---|---|---|")
            for count in options.batches:
                _print_rows(name, count, _by_turns(ways, count, options.rounds))


class Ways:
    """A process that runs detectors when it is told. See `benchmarks.detector_speed.ways`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        ready = self._answer()
        self.labels: list[str] = ready["ways"]
        self.torch: str = ready["torch"]
        self.precision: str = ready["precision"]

    def run(self, label: str, count: int) -> dict[str, Any]:
        """One batch of `count`: seconds of it all, and of each network."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"label": label, "count": count}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a process of the benchmark has ended: see above")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def _started(name: str, options: argparse.Namespace, env: Mapping[str, str], *, ours: bool) -> Iterator[Ways]:
    command = [sys.executable, "-m", "benchmarks.detector_speed.ways", name, "--threads", str(options.threads)]
    command += ["--precision", options.precision, "--compilers", *options.compilers]
    command += ["--cpu-time"] * options.cpu_time + ["--ours"] * ours
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **env}
    ) as child:
        try:
            yield Ways(child)
            assert child.stdin is not None
            child.stdin.close()
            child.wait(_ENDS_WITHIN_S)
        finally:
            child.kill()


def _by_turns(ways: Mapping[str, Ways], count: int, rounds: int) -> Answers:
    answers: Answers = defaultdict(list)
    for _ in range(rounds):
        for label, child in ways.items():
            answers[label].append(child.run(label, count))
    return answers


def _print_rows(name: str, count: int, answers: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    base = [answer["seconds"] for answer in answers[_BASE]]
    for label, of_way in answers.items():
        taken = [answer["seconds"] for answer in of_way]
        ratio = statistics.median(before / after for before, after in zip(base, taken, strict=True))
        rate = count / statistics.median(taken)
        inside = {
            part: 1000 * statistics.mean(answer["networks"][part] for answer in of_way)
            for part in of_way[0]["networks"]
        }
        if inside:
            inside["around"] = 1000 * statistics.mean(taken) - sum(inside.values())
        where = ", ".join(f"{part} {ms:.1f}" for part, ms in inside.items())
        print(f"| `{name}` | {count} | {label} | {rate:.2f} | {ratio:.2f} | {where} |", flush=True)


if __name__ == "__main__":
    main()
