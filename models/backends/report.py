"""The report of a network that was built for a machine. It does without torch, because clients read it too."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from models.backends.names import BackendName
from models.precision import Precision

ExportStatus = Literal["verified", "refused", "failed"]


class ExportIdentity(BaseModel):
    """Everything that a built network depends on. It is used only where all of this is equal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: BackendName
    precision: Precision
    device: str = Field(description="`cpu` or `cuda`.")
    threads: int = Field(ge=1, description="Threads that compute one batch.")
    weights: str = Field(description="Digest of the weights.")
    calibration: str | None = Field(
        None,
        description="The dataset version that int8 was calibrated on, `photos/2`; null for the model's own dataset.",
    )
    libraries: dict[str, str] = Field(
        description="Versions of the libraries that matter, and a digest of Fovea's code."
    )
    machine: dict[str, str] = Field(description="The machine that it was compiled for.")

    @property
    def key(self) -> str:
        """Name of its directory. Different identities have different names."""
        canonical = self.model_dump_json()
        return f"{self.backend}-{self.precision}-{hashlib.sha256(canonical.encode()).hexdigest()[:16]}"


class Agreement(BaseModel):
    """How its answers compare with those of eager float32."""

    model_config = ConfigDict(frozen=True)

    pictures: int = Field(description="Number of images that were compared.")
    source: Literal["dataset", "generated"] = Field(
        description="Validation images of a dataset, or generated images if there is none."
    )
    top1: float | None = Field(
        None, description="Share of images (for segmentation, of pixels) with the same best category."
    )
    largest_score_difference: float | None = Field(None, description="Largest difference of a probability, in [0, 1].")
    score_difference_p999: float | None = Field(
        None, description="Segmentation: largest difference among 99.9 % of the pixels, in [0, 1]."
    )
    ap: float | None = Field(
        None,
        description="Detectors: average precision (IoU 0.50 to 0.95) with the objects of eager float32 as the truth.",
    )
    objects: int | None = Field(None, description="Number of these objects: those with a score of at least 0.3.")
    network_difference: float | None = Field(
        None, description="Detectors: largest relative difference between the outputs of a network for the same input."
    )


class Calibration(BaseModel):
    """The images that gave int8 its ranges of values."""

    model_config = ConfigDict(frozen=True)

    dataset: str = Field(description="`ants-bees/1`.")
    pictures: int


class Speed(BaseModel):
    """Images per second, measured in turn with eager float32: of processor time on a CPU, else of wall clock."""

    model_config = ConfigDict(frozen=True)

    batch: int
    images_per_s: float
    eager_images_per_s: float


class ExportReport(BaseModel):
    """The result of one attempt to build a network."""

    model_config = ConfigDict(frozen=True)

    format_version: Literal[1] = 1
    identity: ExportIdentity
    status: ExportStatus = Field(
        description="`verified`: may serve; `refused`: differs from eager float32; `failed`: could not be built."
    )
    reason: str | None = Field(None, description="Why it was refused or failed.")
    calibration: Calibration | None = Field(None, description="Only for int8.")
    agreement: Agreement | None = None
    speeds: tuple[Speed, ...] = ()
    created_at: datetime
    build_s: float | None = Field(None, description="Seconds that the build took, without verification.")
    files: dict[str, str] = Field(default_factory=dict, description="sha256 of each file; checked when it is loaded.")
    size_bytes: int = 0

    @property
    def seconds_per_image(self) -> float:
        """The mean over the batch sizes; lower is faster."""
        return _mean([1 / speed.images_per_s for speed in self.speeds])

    @property
    def eager_seconds_per_image(self) -> float:
        """The same for eager float32."""
        return _mean([1 / speed.eager_images_per_s for speed in self.speeds])


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
