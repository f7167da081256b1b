"""`python -m app.engine.builds.build_backend`: builds one network with a faster backend and stores it with its figures.

It is a separate process of low priority, because a compiler takes a minute and a gigabyte, and may crash. One process
per home builds at a time; a process that waited may find the work done.
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

STARTED: Final = "building starts"  # the time of the build counts from this line
EXIT_NOTHING_BUILT: Final = 3  # the model was deleted, or the disk is full: not a fault of the backend

_NICENESS = 10  # a tenth of the share of others; with 19 a busy server would stop it completely

log = logging.getLogger("app.engine.builds.build_backend")


def main(arguments: list[str] | None = None) -> int:
    """Builds, and returns the exit code: 0 if there is a report, of success or failure."""
    parser = argparse.ArgumentParser(
        prog="python -m app.engine.builds.build_backend", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--registry", type=Path, required=True)
    parser.add_argument("--datasets", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="directory in the layout of TORCH_HOME")
    parser.add_argument("--name", required=True, help="a registered model, or pretrained weights of the catalogue")
    parser.add_argument("--version", type=int, help="of a registered model")
    parser.add_argument("--key", required=True, help="the backend to build, one that the policy allows")
    parser.add_argument("--precision", choices=get_args(PrecisionPolicy), required=True, help="policy")
    parser.add_argument("--stand-in", help="dataset version to use instead of the model's own: photos/2")
    parser.add_argument("--device", required=True)
    parser.add_argument("--threads", type=int, required=True, help="threads of the process that will serve")
    parser.add_argument("--memory-bytes", type=int, required=True, help="memory limit of this process; 0 is no limit")
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
            print(f"{options.key} can no longer be built here")
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
    """Lowers the priority, limits the memory, and makes this process the first to be killed when memory runs out."""
    import resource

    os.nice(_NICENESS)
    with suppress(OSError):  # Linux may schedule by session (autogroup, sched(7)): this process is a session
        Path("/proc/self/autogroup").write_text(str(_NICENESS), encoding="ascii")
    if memory_bytes:
        # RLIMIT_DATA counts allocated memory, not mapped files.
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


if __name__ == "__main__":
    sys.exit(main())
