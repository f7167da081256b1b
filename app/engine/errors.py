"""Everything `app.engine` raises on purpose. It knows no HTTP.

InferenceError
 ├─ EngineFull            too many images are pending
 ├─ ModelLoading          the model was not in memory before the deadline
 ├─ EngineRestarting      the engine process died and has not restarted yet
 ├─ DeadlineExceeded      the prediction was not ready in time
 ├─ OutOfDeviceMemory     the model or its images do not fit on the device
 ├─ WrongTask             the model is made for another task
 ├─ UnknownCategory       the model has no such category
 └─ ImageUrlError
     ├─ ImageUrlRefused   a URL that may not be fetched
     └─ ImageUrlFailed    a URL that did not send an image in time
"""

from __future__ import annotations


class InferenceError(Exception):
    """An error of this package: `str()` says what is wrong, `hint` what to do, if anything."""

    def __init__(self, message: str, *, hint: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        self.retry_after_s = retry_after_s


class EngineFull(InferenceError):
    """The limit of pending images is reached."""


class ModelLoading(InferenceError):
    """The model is still being loaded."""


class EngineRestarting(InferenceError):
    """The engine process died and is restarting."""


class DeadlineExceeded(InferenceError):
    """The prediction was not ready before its deadline."""


class OutOfDeviceMemory(InferenceError):
    """The device is out of memory."""


class WrongTask(InferenceError):
    """The model is made for another task."""


class UnknownCategory(InferenceError):
    """The model has no such category."""


class ImageUrlError(InferenceError):
    """An image URL that does not lead to an image."""


class ImageUrlRefused(ImageUrlError):
    """A URL outside the operator's allow-list, or one that leads to an address that is not public."""


class ImageUrlFailed(ImageUrlError):
    """The host did not answer with an image of acceptable size in time."""
