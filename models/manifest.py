"""The manifest of a model version: what it is and where it comes from. Has no torch, because clients read it too."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, JsonValue, model_validator

Task = Literal["classification", "detection", "segmentation"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Preset(BaseModel):
    """Preprocessing that travels with weights: resize the shorter side, crop the centre, scale to [0, 1], normalise.

    The order and the interpolation are torchvision's `ImageClassification` preset.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: Literal[1, 3] = Field(3, description="3 is RGB; 1 is luma (ITU-R 601-2), for grey images.")
    resize_px: Annotated[int, Field(ge=1, le=4096, description="Length of the shorter side before the crop.")]
    crop_px: Annotated[int, Field(ge=1, le=4096, description="Side of the centre crop, which is the network's input.")]
    interpolation: Literal["nearest-exact", "bilinear", "bicubic"] = "bilinear"
    mean: tuple[FiniteFloat, ...] = Field(description="Mean per channel, of values in [0, 1].")
    std: tuple[FiniteFloat, ...] = Field(description="Standard deviation per channel, of values in [0, 1].")

    @property
    def image_size_px(self) -> int:
        """The side of the network's input."""
        return self.crop_px

    def __str__(self) -> str:
        return f"{self.channels} x {self.crop_px} x {self.crop_px} px, cut from {self.resize_px} px"

    @model_validator(mode="after")
    def _one_number_a_channel(self) -> Preset:
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            msg = f"mean and std need {self.channels} number(s), one per channel"
            raise ValueError(msg)
        if any(value <= 0 for value in self.std):
            msg = "every std must be above 0"
            raise ValueError(msg)
        return self


class ScalePreset(BaseModel):
    """Preprocessing of detectors and segmentation networks: the whole image is resized, then normalised.

    The shorter side becomes `shorter_px` unless the longer one would exceed `longer_px`: torchvision's rule, after
    Ren et al. 2015, sec. 3.3. If both limits are equal, the image is fitted into a square.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: Literal[3] = Field(3, description="RGB.")
    shorter_px: Annotated[int, Field(ge=8, le=8192, description="Length of the shorter side.")]
    longer_px: Annotated[int, Field(ge=8, le=8192, description="Largest length of the longer side.")]
    keeps_aspect: bool = Field(
        True, description="If false, the image is stretched to longer_px x longer_px, for fixed grids."
    )
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat] = IMAGENET_MEAN
    std: tuple[FiniteFloat, FiniteFloat, FiniteFloat] = IMAGENET_STD

    @property
    def image_size_px(self) -> int:
        """The shorter side of the network's input."""
        return self.shorter_px

    def __str__(self) -> str:
        if not self.keeps_aspect:
            return f"{self.channels} x {self.longer_px} x {self.longer_px} px, stretched"
        return f"{self.channels} channels, shorter side {self.shorter_px} px, longer at most {self.longer_px} px"

    @model_validator(mode="after")
    def _makes_sense(self) -> ScalePreset:
        if self.longer_px < self.shorter_px:
            msg = "longer_px cannot be less than shorter_px"
            raise ValueError(msg)
        if any(value <= 0 for value in self.std):
            msg = "every std must be above 0"
            raise ValueError(msg)
        return self


AnyPreset = Preset | ScalePreset


class DatasetReference(BaseModel):
    """The dataset that a model was trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: int
    fingerprint: str = Field(description="sha256 over the images' contents, categories and splits.")


class ManifestDraft(BaseModel):
    """A manifest before the registry gives it a name, a version and the file's digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Task = "classification"
    architecture: str = Field(description="Catalogue name.")
    options: dict[str, str] = Field(
        default_factory=dict, description="The architecture's options, if it has any: `variant`, `backbone`."
    )
    categories: tuple[str, ...] = Field(
        min_length=1,
        description="Label of every index that the network predicts. In detection, the first label has index 1.",
    )
    preset: AnyPreset
    metrics: dict[str, FiniteFloat] = Field(
        default_factory=dict, description="Metrics in [0, 1], for instance `val/top1`."
    )
    dataset: DatasetReference | None = None
    base: str | None = Field(
        None,
        description="Weights that training started from, `resnet18.IMAGENET1K_V1` or `ants-bees/2`; null for none.",
    )
    strategy: str | None = Field(None, description="`feature_extraction`, `fine_tune` or `from_scratch`.")
    config: dict[str, JsonValue] = Field(default_factory=dict, description="The job's full resolved configuration.")
    seed: int | None = None
    job_id: str | None = None
    origin: Literal["trained", "uploaded"] = "trained"
    device: str | None = Field(None, description="Device that it was trained on.")
    libraries: dict[str, str] = Field(default_factory=dict, description="Version of each library that trained it.")
    description: str | None = Field(None, max_length=2000)


class Manifest(ManifestDraft):
    """A published, immutable model version."""

    format_version: Literal[1] = 1
    name: str
    version: int = Field(ge=1)
    created_at: datetime
    parameters: int = Field(description="Number of learnable parameters.")
    size_bytes: int = Field(description="Size of state_dict.safetensors.")
    sha256: str = Field(description="Digest of state_dict.safetensors; checked on load.")

    @property
    def reference(self) -> str:
        """`name/version`, as requests spell it."""
        return f"{self.name}/{self.version}"


def as_json(model: BaseModel) -> dict[str, Any]:
    """The model's JSON form as plain Python values."""
    return model.model_dump(mode="json")
