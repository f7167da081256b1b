"""Everything `models` raises on purpose.

ModelsError
 ├─ InvalidName               a model, dataset or alias name that cannot be one
 ├─ ImageError
 │   ├─ NotAnImage            the bytes are no image in a format Fovea reads
 │   ├─ BrokenImage           an image that ends early or does not decode
 │   ├─ ImageTooLarge         more pixels than the limit
 │   └─ TooManyTiles          an image so large that its tiles are too many
 ├─ NoMasks                   masks asked of a network that makes none
 ├─ UnknownArchitecture
 ├─ UnsupportedPreset         an image size or channels the architecture does not take
 ├─ UnsupportedOption         an option the architecture does not have, or a value it cannot have
 ├─ UnknownWeights            a weights entry the architecture does not have
 ├─ WeightsUnavailable        pretrained weights neither cached nor reachable
 ├─ IncompatibleWeights       keys or shapes that do not fit the architecture
 ├─ UnsafeWeights             a file that weights-only loading refuses
 ├─ ProposalsUnavailable      selective search is not installed
 ├─ BackendError
 │   ├─ BackendUnavailable    what it takes to build or run it is not here
 │   └─ BackendRefused        it does not compute what PyTorch's own operators do
 └─ RegistryError
     ├─ UnknownModel, UnknownVersion, UnknownAlias
     ├─ VersionInUse          an alias points at the version to delete
     └─ CorruptVersion        sha256 or files do not match the manifest
"""

from __future__ import annotations

from collections.abc import Sequence


class ModelsError(Exception):
    """An error of this package: `str()` says what is wrong, `hint` the way out, if there is one."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class InvalidName(ModelsError):
    """A name that cannot be a model, dataset or alias name."""


class ImageError(ModelsError):
    """An image that cannot be used."""


class NotAnImage(ImageError):
    """The bytes are no image in a format Fovea reads."""


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
    """The architecture has no such option, or not such a value of it."""


class UnsupportedPreset(ModelsError):
    """The architecture does not take images of that size or number of channels."""


class UnknownWeights(ModelsError):
    """The architecture has no pretrained weights of that name."""


class WeightsUnavailable(ModelsError):
    """Pretrained weights are neither in the cache nor reachable."""


class IncompatibleWeights(ModelsError):
    """A state_dict does not fit its architecture: which keys are missing, unexpected or of another shape."""

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
    """The file holds more than tensors and primitives, or is no state_dict at all."""


class ProposalsUnavailable(ModelsError):
    """What finds region proposals is not installed."""


class BackendError(ModelsError):
    """A network cannot run in another way than eagerly."""


class BackendUnavailable(BackendError):
    """This machine, or this network, lacks what the backend needs."""


class NothingToCalibrateOn(BackendError):
    """A backend takes its ranges from real images, and none or too few are here."""


class BackendRefused(BackendError):
    """What was built differs from eager float32 beyond tolerance."""


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
    """What is on disk is not what the manifest says."""
