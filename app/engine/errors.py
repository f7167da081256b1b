"""Everything `app.engine` raises on purpose. It knows no HTTP.

InferenceError
 ├─ EngineFull            too many images wait already
 ├─ ModelLoading          the model was not in memory before the deadline
 ├─ EngineRestarting      the process that has the device died, and is not back yet
 ├─ DeadlineExceeded      the prediction was not ready in time
 ├─ OutOfDeviceMemory     the model or its images do not fit on the device
 ├─ WrongTask             a model asked for what it does not do
 ├─ UnknownCategory       a category asked for that the model does not have
 └─ ImageUrlError
     ├─ ImageUrlRefused   a URL that may not be fetched
     └─ ImageUrlFailed    a URL that did not give an image in time
"""

from __future__ import annotations


class InferenceError(Exception):
    """An error of this package: `str()` says what is wrong, `hint` the way out, if there is one."""

    def __init__(self, message: str, *, hint: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        self.retry_after_s = retry_after_s


class EngineFull(InferenceError):
    """More images wait than the engine accepts."""


class ModelLoading(InferenceError):
    """The model is still being loaded."""


class EngineRestarting(InferenceError):
    """The process that has the device died, and is being started again."""


class DeadlineExceeded(InferenceError):
    """The prediction was not ready before its deadline."""


class OutOfDeviceMemory(InferenceError):
    """The device has no memory left for it."""


class WrongTask(InferenceError):
    """The model does another task than the one asked of it."""


class UnknownCategory(InferenceError):
    """The model has no such category."""


class ImageUrlError(InferenceError):
    """An image URL that gives no image."""


class ImageUrlRefused(ImageUrlError):
    """A URL outside the operator's allow-list, or one that leads to an address that is not public."""


class ImageUrlFailed(ImageUrlError):
    """The host did not answer with an image of acceptable size in time."""
