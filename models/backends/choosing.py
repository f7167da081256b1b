"""Lists the backends that this machine can build for a network, and chooses the fastest one that is verified."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch

from models.backends.backend import Backend, BackendName
from models.backends.compiler import BuildRequest, Compiler
from models.backends.cuda_graphs import CudaGraphs
from models.backends.eager import EagerBackend
from models.backends.eager_bfloat16 import EagerBfloat16
from models.backends.exports import Exports
from models.backends.graphs import DetectionGraph
from models.backends.machine import best_precision, describe_libraries, describe_machine
from models.backends.names import BackendChoice
from models.backends.openvino import OpenVino
from models.backends.openvino_int8 import OpenVinoInt8
from models.backends.report import ExportIdentity, ExportReport
from models.backends.views import natural_views
from models.errors import BackendUnavailable
from models.precision import Precision, PrecisionPolicy

log = logging.getLogger(__name__)

COMPILERS: Final[tuple[Compiler, ...]] = (  # the quickest to build first
    EagerBfloat16(),
    CudaGraphs(),
    OpenVino(),
    OpenVinoInt8(),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """The operator's settings for backends."""

    backend: BackendChoice = "auto"  # eager: nothing is built
    precision: PrecisionPolicy = "auto"  # auto: bfloat16 if the device has it; int8: also int8, if it is verified
    calibration_dataset: str | None = None  # for models whose own dataset is missing: `photos`, `photos/2`


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A backend for one network on this machine, built or not."""

    compiler: Compiler
    identity: ExportIdentity


def can_be_built(eager: EagerBackend) -> bool:
    """Returns False for a detector that cannot be taken apart: only eager PyTorch can run it."""
    return not isinstance(eager.graph, DetectionGraph) or eager.graph.split is not None


def candidates(
    device: torch.device, policy: Policy, *, weights: str, calibration: str | None = None
) -> list[Candidate]:
    """Lists the backends that this machine can build for `weights`, a digest, and for PyTorch's number of threads.

    calibration: the dataset version for int8 instead of the model's own, `photos/2`.
    """
    found = []
    for compiler, precision in _wanted(device, policy):
        if compiler.why_not(device) is None:
            stands_in = calibration if precision == "int8" else None
            identity = identify(compiler, precision, device, weights=weights, calibration=stands_in)
            found.append(Candidate(compiler=compiler, identity=identity))
    return found


def why_not(device: torch.device, policy: Policy) -> Iterator[tuple[BackendName, Precision, str]]:
    """Yields the backends that this machine cannot build, with the reasons."""
    for compiler, precision in _wanted(device, policy):
        reason = compiler.why_not(device)
        if reason:
            yield compiler.name, precision, reason


def identify(
    compiler: Compiler, precision: Precision, device: torch.device, *, weights: str, calibration: str | None = None
) -> ExportIdentity:
    """Returns everything that the result of `compiler` depends on here."""
    return ExportIdentity(
        backend=compiler.name,
        precision=precision,
        device=device.type,
        threads=torch.get_num_threads(),
        weights=weights,
        calibration=calibration,
        libraries=describe_libraries(*compiler.libraries),
        machine=describe_machine(device),
    )


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A loaded backend with its report."""

    backend: Backend
    report: ExportReport


def choose(
    exports: Exports,
    eager: EagerBackend,
    policy: Policy,
    *,
    weights: str,
    calibration: str | None = None,
    current: ExportIdentity | None = None,
) -> Chosen | None:
    """Loads the fastest backend that is stored, verified and faster than eager. Returns None to stay eager.

    A backend that the policy names is loaded even if eager is faster. A backend that cannot be loaded, or that fails
    with its first batch, is logged and left out. weights, calibration: see `candidates`. current: the backend that
    runs already; the result is None if no stored one is faster.
    """
    if not can_be_built(eager):
        return None
    possible = candidates(eager.device, policy, weights=weights, calibration=calibration)
    found = [(exports.find(each.identity), each) for each in possible]
    verified = [(report, each) for report, each in found if report is not None and report.status == "verified"]
    for report, each in sorted(verified, key=lambda pair: pair[0].seconds_per_image):
        if policy.backend == "auto" and report.seconds_per_image >= report.eager_seconds_per_image:
            return None
        if each.identity == current:
            return None
        try:
            directory = exports.check_files(report)
            request = BuildRequest(eager=eager, directory=directory, precision=each.identity.precision)
            backend = each.compiler.load(request)
            # the first run is slow, and shows a backend that fails
            backend.run(natural_views(eager.graph.preset, 1)[0][None])
        except (BackendUnavailable, RuntimeError) as error:
            log.warning("%s is left out: %s %s", each.identity.key, error, getattr(error, "hint", None) or "")
        else:
            return Chosen(backend=backend, report=report)
    return None


def _wanted(device: torch.device, policy: Policy) -> Iterator[tuple[Compiler, Precision]]:
    precisions: list[Precision] = ["float32" if policy.precision == "float32" else best_precision(device)]
    if policy.precision == "int8":
        precisions.append("int8")
    for compiler in COMPILERS:
        if policy.backend in ("auto", compiler.name):
            yield from ((compiler, precision) for precision in precisions if precision in compiler.precisions)
