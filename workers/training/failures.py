"""Explains why a run failed and what to do: one function per kind of error."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch

import torch

from models.errors import ImageError, IncompatibleWeights, ModelsError, WeightsUnavailable
from workers.errors import NO_SPACE, DiskFull
from workers.run_directory import RunDirectory, RunFailure

_IMAGES_SHOWN = 8
_SEE_LOG = "GET /v1/jobs/{id}/log shows the whole log."


class NonFiniteLoss(Exception):
    """A loss or another metric is infinite or not a number."""

    def __init__(
        self, *, step: int, epoch: int, loss: float, name: str = "train/loss", images: Sequence[str] = ()
    ) -> None:
        shown = ", ".join(images[:_IMAGES_SHOWN]) + (", …" if len(images) > _IMAGES_SHOWN else "")
        where = f", on {shown}" if images else ""
        super().__init__(f"{name} became {loss} at step {step}, in epoch {epoch}{where}.")


class UnusableImage(Exception):
    """An image of the dataset cannot be read any more; validation could read it."""

    def __init__(self, path: str, error: ImageError | OSError) -> None:
        super().__init__(f"The image {path} cannot be read: {error}")


@singledispatch
def explain_failure(error: BaseException, run: RunDirectory) -> RunFailure:
    """Returns the explanation for the caller who created the job."""
    return RunFailure(code="internal_error", message=f"{type(error).__name__}: {error}", hint=_SEE_LOG)


@explain_failure.register
def _(error: torch.OutOfMemoryError | MemoryError, run: RunDirectory) -> RunFailure:
    batch_size = run.read_config().job.batch_size
    smaller = f"batch_size {max(1, batch_size // 2)} (it was {batch_size})"
    first_line = next(iter(str(error).splitlines()), "")
    return RunFailure(
        code="out_of_memory",
        message=f"The device ran out of memory: {first_line}",
        hint=f"Try {smaller}, a smaller image_size_px or a smaller model.",
    )


@explain_failure.register
def _(error: RuntimeError | ValueError, run: RunDirectory) -> RunFailure:
    message = str(error)
    if "can't allocate memory" in message:  # torch raises RuntimeError for this on a CPU
        return explain_failure(MemoryError(message), run)
    if "Expected more than 1 value per channel" in message:
        hint = "Batch normalization needs at least two images per batch. Set batch_size to 2 or more."
        return RunFailure(code="bad_configuration", message=message, hint=hint)
    return RunFailure(code="internal_error", message=f"{type(error).__name__}: {message}", hint=_SEE_LOG)


@explain_failure.register
def _(error: NonFiniteLoss, run: RunDirectory) -> RunFailure:
    good = "The last good checkpoint is kept. " if run.last_checkpoint.exists() else ""
    hint = f"{good}Use a smaller learning_rate, or precision float32."
    return RunFailure(code="non_finite_loss", message=str(error), hint=hint)


@explain_failure.register
def _(error: DiskFull, run: RunDirectory) -> RunFailure:
    kept = "The previous checkpoint is complete. " if run.last_checkpoint.exists() else ""
    return RunFailure(
        code="disk_full",
        message=f"The disk of the run is full: {error}",
        hint=f"{kept}Free disk space (delete old jobs, datasets or versions), then retry the job.",
    )


@explain_failure.register
def _(error: OSError, run: RunDirectory) -> RunFailure:
    if error.errno in NO_SPACE:
        return explain_failure(DiskFull(str(error)), run)
    return RunFailure(code="internal_error", message=f"{type(error).__name__}: {error}", hint=_SEE_LOG)


@explain_failure.register
def _(error: UnusableImage, run: RunDirectory) -> RunFailure:
    hint = "The file was changed, or the disk is failing. Post the dataset again."
    return RunFailure(code="bad_data", message=str(error), hint=hint)


@explain_failure.register
def _(error: ModelsError, run: RunDirectory) -> RunFailure:
    return RunFailure(code="bad_configuration", message=str(error), hint=error.hint)


@explain_failure.register
def _(error: WeightsUnavailable, run: RunDirectory) -> RunFailure:
    return RunFailure(code="weights_unavailable", message=str(error), hint=error.hint)


@explain_failure.register
def _(error: IncompatibleWeights, run: RunDirectory) -> RunFailure:
    return RunFailure(code="incompatible_weights", message=str(error), hint=error.hint)
