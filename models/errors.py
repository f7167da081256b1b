"""Everything `models` raises on purpose.

ModelsError
 ├─ InvalidName               a name that no model, dataset or alias can have
 ├─ ImageError
 │   ├─ NotAnImage            the bytes are not an image in a format that Fovea reads
 │   ├─ BrokenImage           an image that ends early or does not decode
 │   ├─ ImageTooLarge         more pixels than the limit
 │   └─ TooManyTiles          the image would be cut into more tiles than the limit
 ├─ NoMasks                   the request asks for masks, but the network makes none
 ├─ UnknownArchitecture
 ├─ UnsupportedPreset         an image size or number of channels that the architecture does not take
 ├─ UnsupportedOption         the architecture does not have the option, or does not allow the value
 ├─ UnknownWeights            a weights entry the architecture does not have
 ├─ WeightsUnavailable        pretrained weights are not cached and cannot be downloaded
 ├─ IncompatibleWeights       keys or shapes that do not fit the architecture
 ├─ UnsafeWeights             the file contains more than tensors, so it is not loaded
 ├─ ProposalsUnavailable      selective search is not installed
 ├─ BackendError
 │   ├─ BackendUnavailable    the machine or the network lacks something that the backend needs
 │   └─ BackendRefused        its results differ too much from those of PyTorch's own operators
 └─ RegistryError
     ├─ UnknownModel, UnknownVersion, UnknownAlias
     ├─ VersionInUse          an alias points at the version to delete
     └─ CorruptVersion        sha256 or files do not match the manifest
"""

from __future__ import annotations

from collections.abc import Sequence


class ModelsError(Exception):
    """The base of all errors here. `str()` says what is wrong; `hint`, if there is one, says what to do."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class InvalidName(ModelsError):
    """A name that cannot be a model, dataset or alias name."""


class ImageError(ModelsError):
    """An image that cannot be used."""


class NotAnImage(ImageError):
    """The bytes are not an image in a format that Fovea reads."""


class BrokenImage(ImageError):
    """The bytes begin like an image but do not decode to one."""


class ImageTooLarge(ImageError):
    """The image has more pixels than the limit; it was not decoded."""


class TooManyTiles(ImageError):
    """The image is cut into more tiles than the limit."""


class NoMasks(ModelsError):
    """The network makes no masks."""


class UnknownArchitecture(ModelsError):
    """No architecture of that name is in the catalogue."""


class UnsupportedOption(ModelsError):
    """The architecture does not have the option, or does not allow the value."""


class UnsupportedPreset(ModelsError):
    """The architecture does not take images of that size or number of channels."""


class UnknownWeights(ModelsError):
    """The architecture has no pretrained weights of that name."""


class WeightsUnavailable(ModelsError):
    """Pretrained weights are not in the cache and cannot be downloaded."""


class IncompatibleWeights(ModelsError):
    """A state_dict does not fit its architecture. Lists the keys that are missing, unexpected or of another shape."""

    def __init__(
        self,
        message: str,
        *,
        missing: Sequence[str] = (),
        unexpected: Sequence[str] = (),
        mismatched: Sequence[str] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        self.mismatched = tuple(mismatched)


class UnsafeWeights(ModelsError):
    """The file contains more than tensors and primitives, or is not a state_dict."""


class ProposalsUnavailable(ModelsError):
    """The library that finds region proposals is not installed."""


class BackendError(ModelsError):
    """A network can only run eagerly."""


class BackendUnavailable(BackendError):
    """This machine, or this network, lacks what the backend needs."""


class NothingToCalibrateOn(BackendError):
    """The backend needs real images for calibration, and there are too few."""


class BackendRefused(BackendError):
    """The results of the built network differ from eager float32 by more than the tolerance."""


class RegistryError(ModelsError):
    """An error of the model registry."""


class UnknownModel(RegistryError):
    """No model of that name is registered."""


class UnknownVersion(RegistryError):
    """The model has no such version."""


class UnknownAlias(RegistryError):
    """The model has no such alias."""


class VersionInUse(RegistryError):
    """An alias points at the version."""


class CorruptVersion(RegistryError):
    """The files on disk do not match the manifest."""
