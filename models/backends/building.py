"""Builds a network for this machine, holds it against eager float32, measures both, and stores it with the figures."""

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

LEAST_TO_CALIBRATE_ON: Final = 16  # images; ranges of fewer are those of these images
LEAST_TO_VERIFY_ON: Final = 8  # others, in int8: it is more than rounding, and one image tells nothing
_LONGEST_REASON = 2000  # a compiler's words can be pages


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """What a network is tried out on: views, uint8 [C, h, w]."""

    to_verify_on: Sequence[Tensor]
    source: Literal["dataset", "generated"]  # of those
    to_calibrate_on: Sequence[Tensor] = ()  # others, of a dataset only
    dataset: str | None = None  # name and version

    @property
    def calibration(self) -> Calibration | None:
        """To be written down."""
        if self.dataset is None:
            return None
        return Calibration(dataset=self.dataset, pictures=len(self.to_calibrate_on))

    def check_calibration(self) -> None:
        """Raises NothingToCalibrateOn if they are too few for int8."""
        if len(self.to_calibrate_on) < LEAST_TO_CALIBRATE_ON or len(self.to_verify_on) < LEAST_TO_VERIFY_ON:
            raise NothingToCalibrateOn(
                f"int8 needs {LEAST_TO_CALIBRATE_ON} pictures to calibrate on and {LEAST_TO_VERIFY_ON} others to be "
                f"verified on; of {self.dataset or 'no dataset'} {len(self.to_calibrate_on)} and "
                f"{len(self.to_verify_on) if self.source == 'dataset' else 0} can be read."
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
    """Builds `candidate` and says what came of it, on disk too; a failure is remembered like a success.

    eager: in float32.
    Raises OSError if the disk is full or the version was deleted meanwhile, NothingToCalibrateOn if `pictures` are
    too few for int8: then nothing is left behind.
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
        except Exception as error:  # a compiler breaks with anything
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
