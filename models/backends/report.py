"""What is written down of a network that was built for a machine. No torch here: clients read it too."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from models.backends.names import BackendName
from models.precision import Precision

ExportStatus = Literal["verified", "refused", "failed"]


class ExportIdentity(BaseModel):
    """All that a built network depends on: it is used where every one of these is the same, and nowhere else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: BackendName
    precision: Precision
    device: str = Field(description="`cpu` or `cuda`.")
    threads: int = Field(ge=1, description="Threads that compute one batch.")
    weights: str = Field(description="Digest of the weights.")
    calibration: str | None = Field(
        None,
        description="Of int8: the dataset version, `photos/2`, that it was calibrated on; null if the model's own.",
    )
    libraries: dict[str, str] = Field(description="Version of each that matters, and a digest of our own code.")
    machine: dict[str, str] = Field(description="What its machine code is made for.")

    @property
    def key(self) -> str:
        """Name of its directory: the same for equal identities only."""
        canonical = self.model_dump_json()
        return f"{self.backend}-{self.precision}-{hashlib.sha256(canonical.encode()).hexdigest()[:16]}"


class Agreement(BaseModel):
    """How its answers compare to eager float32's."""

    model_config = ConfigDict(frozen=True)

    pictures: int = Field(description="How many were looked at.")
    source: Literal["dataset", "generated"] = Field(
        description="Validation pictures of a dataset, the model's own if it is here; or made-up ones."
    )
    top1: float | None = Field(
        None, description="Share of pictures, in segmentation of pixels, with the same best category."
    )
    largest_score_difference: float | None = Field(None, description="Of probabilities, in [0, 1].")
    score_difference_p999: float | None = Field(
        None, description="Of segmentation: what the scores of 99.9 % of the pixels differ by at most, in [0, 1]."
    )
    ap: float | None = Field(
        None,
        description="Of a detector: average precision (IoU 0.50 to 0.95); eager float32's objects are the truth.",
    )
    objects: int | None = Field(None, description="How many objects that were, of a score of at least 0.3.")
    network_difference: float | None = Field(
        None, description="Of a detector: largest relative difference of what a network of it gives for one input."
    )


class Calibration(BaseModel):
    """What the ranges of int8 were taken from."""

    model_config = ConfigDict(frozen=True)

    dataset: str = Field(description="`ants-bees/1`.")
    pictures: int


class Speed(BaseModel):
    """Images a second of processor time on a CPU, of wall clock elsewhere, measured in turn with eager float32."""

    model_config = ConfigDict(frozen=True)

    batch: int
    images_per_s: float
    eager_images_per_s: float


class ExportReport(BaseModel):
    """One attempt to build a network, and what came of it."""

    model_config = ConfigDict(frozen=True)

    format_version: Literal[1] = 1
    identity: ExportIdentity
    status: ExportStatus = Field(
        description="`verified`: may serve; `refused`: differs from eager float32; `failed`: could not be built."
    )
    reason: str | None = Field(None, description="Why it was refused or failed.")
    calibration: Calibration | None = Field(None, description="Of int8.")
    agreement: Agreement | None = None
    speeds: tuple[Speed, ...] = ()
    created_at: datetime
    build_s: float | None = Field(None, description="Seconds that building took, verification not counted.")
    files: dict[str, str] = Field(default_factory=dict, description="sha256 of each; checked on load.")
    size_bytes: int = 0

    @property
    def seconds_per_image(self) -> float:
        """Mean over the batch sizes: lower is faster."""
        return _mean([1 / speed.images_per_s for speed in self.speeds])

    @property
    def eager_seconds_per_image(self) -> float:
        """The same of eager float32."""
        return _mean([1 / speed.eager_images_per_s for speed in self.speeds])


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
