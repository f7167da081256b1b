"""Builds a network for this machine, compares it with eager float32, measures both, and stores it with the figures."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, cast

from torch import Tensor

from models.backends.backend import Backend
from models.backends.choosing import Candidate
from models.backends.compiler import BuildRequest
from models.backends.detection.agreement import DetectorBackend, check_detectors, compare_detectors
from models.backends.eager import EagerBackend
from models.backends.exports import Exports
from models.backends.report import Agreement, Calibration, ExportReport, ExportStatus, Speed
from models.backends.verification import check, compare, measure
from models.errors import BackendError, BackendRefused, NothingToCalibrateOn
from models.manifest import Task

log = logging.getLogger(__name__)

LEAST_TO_CALIBRATE_ON: Final = 16  # images; fewer would give the ranges of these images only
LEAST_TO_VERIFY_ON: Final = 8  # other images, for int8, which changes more than the last digits
_LONGEST_REASON = 2000  # characters; a compiler may print pages


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """Views, uint8 [C, h, w], that a network is verified, measured and calibrated with."""

    to_verify_on: Sequence[Tensor]
    source: Literal["dataset", "generated"]  # of `to_verify_on`
    to_calibrate_on: Sequence[Tensor] = ()  # others, of a dataset only
    dataset: str | None = None  # name and version

    @property
    def calibration(self) -> Calibration | None:
        """The record of them for the report; None if they are generated."""
        if self.dataset is None:
            return None
        return Calibration(dataset=self.dataset, pictures=len(self.to_calibrate_on))

    def check_calibration(self) -> None:
        """Raises NothingToCalibrateOn if they are too few for int8."""
        if len(self.to_calibrate_on) < LEAST_TO_CALIBRATE_ON or len(self.to_verify_on) < LEAST_TO_VERIFY_ON:
            raise NothingToCalibrateOn(
                f"int8 needs {LEAST_TO_CALIBRATE_ON} images for calibration and {LEAST_TO_VERIFY_ON} others for "
                f"verification. {self.dataset or 'The model has no dataset and'} has {len(self.to_calibrate_on)} and "
                f"{len(self.to_verify_on) if self.source == 'dataset' else 0} that can be read."
            )


def build(
    candidate: Candidate,
    exports: Exports,
    eager: EagerBackend,
    *,
    task: Task,
    pictures: Pictures,
    now: Callable[[], datetime],
) -> ExportReport:
    """Builds `candidate`. Stores and returns the report, of a failure too.

    eager: the network in float32.
    Raises OSError if the disk is full or the version was deleted meanwhile, and NothingToCalibrateOn if there are too
    few `pictures` for int8. Then nothing is stored.
    """
    identity, compiler = candidate.identity, candidate.compiler
    if identity.precision == "int8":
        pictures.check_calibration()
    status: ExportStatus = "verified"
    reason: str | None = None
    agreement: Agreement | None = None
    speeds: tuple[Speed, ...] = ()
    build_s: float | None = None
    with exports.new_directory() as directory:
        try:
            began = time.monotonic()
            request = BuildRequest(
                eager=eager,
                directory=directory,
                precision=identity.precision,
                examples=pictures.to_calibrate_on,
            )
            compiler.build(request)
            build_s = time.monotonic() - began
            built = compiler.load(request)
            agreement = _compare(task, eager, built, pictures)
            speeds = measure(eager, built, pictures.to_verify_on, device=eager.device)
            (check_detectors if task == "detection" else check)(agreement, identity.precision)
        except OSError:
            raise
        except Exception as error:  # a compiler may raise anything
            status = "refused" if isinstance(error, BackendRefused) else "failed"
            reason = _words_of(error)
            for path in directory.iterdir():
                path.unlink()
        return exports.publish(
            directory,
            ExportReport(
                identity=identity,
                status=status,
                reason=reason,
                calibration=pictures.calibration if identity.precision == "int8" else None,
                agreement=agreement,
                speeds=speeds,
                build_s=build_s,
                created_at=now(),
            ),
        )


def _compare(task: Task, eager: EagerBackend, built: Backend, pictures: Pictures) -> Agreement:
    views, source = pictures.to_verify_on, pictures.source
    if task == "detection":
        return compare_detectors(eager, cast("DetectorBackend", built), views, source=source)
    return compare(task, eager, built, views, source=source)


def _words_of(error: Exception) -> str:
    words = str(error) if isinstance(error, BackendError) else f"{type(error).__name__}: {error}"
    return words[:_LONGEST_REASON]
