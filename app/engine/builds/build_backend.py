"""`python -m app.engine.builds.build_backend`: builds one network with a faster backend and stores it with its figures.

A process of its own, of low priority: a compiler takes a minute, a gigabyte, and may crash. One builds at a time,
however many processes serve from the same home; who had to wait may find it done.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, get_args

from app.engine.builds.model_exports import exports_dir, exports_of
from models.precision import PrecisionPolicy
from models.store.locks import hold_lock
from workers.supervision.child_process import die_with

STARTED: Final = "building starts"  # the line after which time is taken
EXIT_NOTHING_BUILT: Final = 3  # the model is gone, or the disk full: no fault of what was to be built

_NICENESS = 10  # a tenth of what others get; with 19 a busy server would stop it altogether

log = logging.getLogger("app.engine.builds.build_backend")


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 if there is a report, whatever it says."""
    parser = argparse.ArgumentParser(
        prog="python -m app.engine.builds.build_backend", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--registry", type=Path, required=True)
    parser.add_argument("--datasets", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="laid out like TORCH_HOME")
    parser.add_argument("--name", required=True, help="a registered model, or pretrained weights of the catalogue")
    parser.add_argument("--version", type=int, help="of a registered model")
    parser.add_argument("--key", required=True, help="what to build, of all that the policy allows")
    parser.add_argument("--precision", choices=get_args(PrecisionPolicy), required=True, help="policy")
    parser.add_argument("--stand-in", help="dataset version in place of that which the model learned from: photos/2")
    parser.add_argument("--device", required=True)
    parser.add_argument("--threads", type=int, required=True, help="threads of the process that will serve")
    parser.add_argument(
        "--memory-bytes", type=int, required=True, help="most that this process may take; 0 is no limit"
    )
    parser.add_argument("--parent", type=int, required=True, help="process id to die with")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if not die_with(options.parent):
        return EXIT_NOTHING_BUILT
    _be_modest(options.memory_bytes)
    exports_dir(options.weights).mkdir(parents=True, exist_ok=True)
    with hold_lock(exports_dir(options.weights) / ".lock"):
        print(STARTED, flush=True)
        return _build(options)


def _build(options: argparse.Namespace) -> int:
    import torch

    from app.engine.builds.calibration_images import pictures_of
    from models.backends.building import build
    from models.backends.choosing import Policy, candidates
    from models.backends.eager import EagerBackend
    from models.errors import ModelsError
    from models.predictors import loading
    from models.store.registry import Registry
    from models.store.weights import find_pretrained
    from workers.datasets.store import DatasetStore

    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    registry = Registry(options.registry)
    try:
        found = exports_of(registry, options.weights, name=options.name, version=options.version)
        policy = Policy(precision=options.precision)
        allowed = candidates(device, policy, weights=found.weights, calibration=options.stand_in)
        candidate = next((each for each in allowed if each.identity.key == options.key), None)
        if candidate is None:
            print(f"{options.key} cannot be built here any more")
            return EXIT_NOTHING_BUILT
        if found.exports.find(candidate.identity) is not None:
            return 0
        found.exports.remove_leftovers()
        if options.version is None:
            pretrained = find_pretrained(options.name)
            assert pretrained is not None
            predictor = loading.load_pretrained(
                *pretrained, weights_dir=options.weights, allow_download=False, device=device
            )
        else:
            version = registry.get(options.name, options.version)
            predictor = loading.load_version(registry, version, device)
        assert isinstance(predictor.backend, EagerBackend)
        pictures = pictures_of(
            predictor,
            found.dataset,
            options.stand_in,
            DatasetStore(options.datasets),
            with_calibration=candidate.identity.precision == "int8",
        )
        build(
            candidate,
            found.exports,
            predictor.backend,
            task=predictor.task,
            pictures=pictures,
            now=lambda: datetime.now(UTC),
        )
    except (ModelsError, OSError) as error:
        print(f"{type(error).__name__}: {error} {getattr(error, 'hint', None) or ''}")
        return EXIT_NOTHING_BUILT
    return 0


def _be_modest(memory_bytes: int) -> None:
    """Lets all others go first, keeps to that much memory, and is the first to go when the machine has none left."""
    import resource

    os.nice(_NICENESS)
    with suppress(OSError):  # Linux may weigh sessions instead of processes (sched(7)): this one is a session
        Path("/proc/self/autogroup").write_text(str(_NICENESS), encoding="ascii")
    if memory_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))  # what it allocates, not what it maps
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


if __name__ == "__main__":
    sys.exit(main())
