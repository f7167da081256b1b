"""The API's own errors, and the table from every error class to a status and a code. `http/problems.py` uses it.

ApiError
 ├─ MalformedBody             400
 ├─ MalformedIdempotencyKey   400
 ├─ InvalidTensor             400   of the Open Inference Protocol: its shape, datatype or bytes do not fit
 ├─ UnknownFile               404
 ├─ UnknownJobType            404
 ├─ NotAcceptable             406
 ├─ BodyTooSlow               408
 ├─ RequestInProgress         409   the first request with this idempotency key has not been answered
 ├─ BodyTooLarge              413
 ├─ TooManyImages             413
 ├─ UnsupportedBody           415
 ├─ RangeNotSatisfiable       416
 ├─ InvalidValue              422   a value that pydantic could not judge; names its field
 │   └─ TooManyFiles          422   more files in a form than the route takes
 └─ IdempotencyMismatch       422   the key was used for another payload
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydantic import JsonValue

from app.engine import errors as inference
from app.schemas.problem import FieldError
from models import errors as models
from workers import errors as workers


class ApiError(Exception):
    """An error of this package: `str()` says what is wrong, `hint` the way out, if there is one."""

    def __init__(
        self, message: str, *, hint: str | None = None, headers: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """headers: what the response has to carry beside the problem."""
        super().__init__(message)
        self.hint = hint
        self.headers = headers


class MalformedBody(ApiError):
    """A body that is not what its Content-Type says."""


class MalformedIdempotencyKey(ApiError):
    """An Idempotency-Key that cannot be one."""


class InvalidTensor(ApiError):
    """A tensor that is not what the model takes, or whose parts do not fit together."""


class UnknownFile(ApiError):
    """No such file in a report."""


class UnknownJobType(ApiError):
    """No such kind of job."""


class NotAcceptable(ApiError):
    """The Accept header asks for what this route cannot answer to this request."""


class BodyTooSlow(ApiError):
    """The body was not there in time; what had come of it was given up."""


class RequestInProgress(ApiError):
    """The first request with this idempotency key is still being answered."""


class BodyTooLarge(ApiError):
    """The body has more bytes than the limit; the rest of it was not read."""


class TooManyImages(ApiError):
    """More images in a request than the limit."""


class UnsupportedBody(ApiError):
    """A Content-Type that the route does not read."""


class RangeNotSatisfiable(ApiError):
    """A Range header that asks for bytes behind the end."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(
            f"The content has {size_bytes} bytes; the range begins behind its end.",
            hint="The download may be complete already.",
            headers={"Content-Range": f"bytes */{size_bytes}"},
        )


class IdempotencyMismatch(ApiError):
    """The idempotency key belongs to a request with another payload."""


class InvalidValue(ApiError):
    """A value that does not make sense."""

    def __init__(
        self,
        message: str,
        *,
        field: str,
        where: str = "body",
        value: JsonValue = None,
        valid: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.error = FieldError(field=field, where=where, message=message, value=value, valid=valid)


class TooManyFiles(InvalidValue):
    """More files in a form than the route takes."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How one class of errors is answered."""

    status: int
    code: str
    title: str
    retry_after_s: int | None = None


KINDS: dict[type[Exception], Kind] = {
    MalformedBody: Kind(400, "malformed_body", "The body cannot be read"),
    MalformedIdempotencyKey: Kind(400, "malformed_idempotency_key", "The Idempotency-Key cannot be one"),
    InvalidTensor: Kind(400, "invalid_tensor", "The tensor cannot be used"),
    UnknownFile: Kind(404, "unknown_file", "No such file"),
    UnknownJobType: Kind(404, "unknown_job_type", "No such kind of job"),
    NotAcceptable: Kind(406, "not_acceptable", "The answer cannot have this form"),
    BodyTooSlow: Kind(408, "body_too_slow", "The body came too slowly"),
    RequestInProgress: Kind(409, "request_in_progress", "The first request is still in progress", retry_after_s=1),
    BodyTooLarge: Kind(413, "body_too_large", "The body is too large"),
    TooManyImages: Kind(413, "too_many_images", "Too many images in one request"),
    UnsupportedBody: Kind(415, "unsupported_body", "The type of the body is not supported"),
    RangeNotSatisfiable: Kind(416, "range_not_satisfiable", "The content has no such range"),
    InvalidValue: Kind(422, "invalid_request", "The request is invalid"),
    IdempotencyMismatch: Kind(422, "idempotency_mismatch", "The Idempotency-Key belongs to another request"),
    inference.EngineFull: Kind(503, "engine_full", "Too many images are pending", retry_after_s=1),
    inference.ModelLoading: Kind(503, "model_loading", "The model is still being loaded", retry_after_s=2),
    inference.EngineRestarting: Kind(503, "engine_restarting", "The engine is restarting", retry_after_s=2),
    inference.DeadlineExceeded: Kind(504, "deadline_exceeded", "The prediction was not ready in time"),
    inference.OutOfDeviceMemory: Kind(507, "out_of_device_memory", "The device is out of memory"),
    inference.WrongTask: Kind(422, "wrong_task", "The model is made for another task"),
    inference.UnknownCategory: Kind(422, "unknown_category", "The model has no such category"),
    inference.ImageUrlRefused: Kind(422, "image_url_refused", "The image URL may not be fetched"),
    inference.ImageUrlFailed: Kind(422, "image_url_failed", "The image URL did not lead to an image"),
    models.InvalidName: Kind(422, "invalid_name", "The name cannot be used"),
    models.NotAnImage: Kind(415, "not_an_image", "Not an image"),
    models.BrokenImage: Kind(422, "broken_image", "The image is damaged"),
    models.ImageTooLarge: Kind(413, "image_too_large", "The image is too large"),
    models.TooManyTiles: Kind(422, "too_many_tiles", "Too many tiles"),
    models.NoMasks: Kind(422, "no_masks", "The model makes no masks"),
    models.UnknownArchitecture: Kind(404, "unknown_architecture", "No such architecture"),
    models.UnsupportedOption: Kind(422, "unsupported_option", "The architecture has no such option"),
    models.UnsupportedPreset: Kind(422, "unsupported_preset", "The architecture does not take such images"),
    models.UnknownWeights: Kind(404, "unknown_weights", "No such pretrained weights"),
    models.WeightsUnavailable: Kind(
        503, "weights_unavailable", "Pretrained weights are not available", retry_after_s=60
    ),
    models.IncompatibleWeights: Kind(422, "incompatible_weights", "The weights do not fit the architecture"),
    models.UnsafeWeights: Kind(422, "unsafe_weights", "The file holds more than tensors"),
    models.ProposalsUnavailable: Kind(503, "proposals_unavailable", "Selective search is not installed"),
    models.UnknownModel: Kind(404, "unknown_model", "No such model"),
    models.UnknownVersion: Kind(404, "unknown_version", "No such model version"),
    models.UnknownAlias: Kind(404, "unknown_alias", "No such alias"),
    models.VersionInUse: Kind(409, "version_in_use", "The version is in use"),
    models.CorruptVersion: Kind(503, "corrupt_version", "The model version is damaged on disk", retry_after_s=60),
    models.ModelsError: Kind(500, "model_error", "The model cannot be used"),
    workers.UnknownDataset: Kind(404, "unknown_dataset", "No such dataset"),
    workers.DamagedDataset: Kind(500, "damaged_dataset", "The dataset version is damaged on disk"),
    workers.UnknownDatasetVersion: Kind(404, "unknown_dataset_version", "No such dataset version"),
    workers.DatasetInUse: Kind(409, "dataset_in_use", "The dataset is in use"),
    workers.CannotExport: Kind(422, "cannot_export", "The format cannot express the dataset"),
    workers.UnsafeArchive: Kind(422, "unsafe_archive", "The archive is refused"),
    workers.BrokenArchive: Kind(422, "broken_archive", "The file is not an archive, or it is damaged"),
    workers.UnusableDataset: Kind(422, "unusable_dataset", "The dataset has no usable images"),
    workers.UnknownJob: Kind(404, "unknown_job", "No such job"),
    workers.IllegalTransition: Kind(409, "wrong_status", "The job's status does not allow it"),
    workers.InvalidJob: Kind(422, "invalid_job", "The job is invalid"),
    workers.StoreUnavailable: Kind(503, "redis_unavailable", "Redis cannot be reached", retry_after_s=5),
    workers.DiskFull: Kind(507, "disk_full", "No space is left on the disk"),
    workers.WorkersError: Kind(500, "worker_error", "The work cannot be done"),
}

UNEXPECTED = Kind(500, "internal_error", "Something broke in Fovea")


def kind_of(error: Exception) -> Kind:
    """The entry of the nearest class in the table; UNEXPECTED where there is none."""
    for ancestor in type(error).__mro__:
        if ancestor in KINDS:
            return KINDS[ancestor]
    return UNEXPECTED
