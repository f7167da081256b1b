"""Network structures of the catalogue."""

from __future__ import annotations

from pydantic import BaseModel, Field

from app.schemas.page import Page
from models.manifest import AnyPreset, Task


class PretrainedWeights(BaseModel):
    """Pretrained weights of an architecture."""

    name: str = Field(description="`IMAGENET1K_V1`.")
    reference: str = Field(description="`resnet18.IMAGENET1K_V1`, to classify with them as they are.")
    is_default: bool = Field(description="Whether `DEFAULT` means these.")
    is_cached: bool = Field(
        description="Whether the file is here; otherwise it is fetched, unless FOVEA_OFFLINE is set."
    )
    file_name: str = Field(description="Name of the file in FOVEA_HOME/weights/hub/checkpoints.")
    size_bytes: int
    metrics: dict[str, float] = Field(description="As published: `imagenet1k/top1` in [0, 1].")


class ArchitectureOption(BaseModel):
    """A choice of structure within one architecture."""

    name: str
    choices: list[str] = Field(description="The first is the default.")
    description: str


class Architecture(BaseModel):
    """A network structure of the catalogue."""

    name: str
    tasks: list[Task]
    family: str
    parameters: int = Field(description="Number of learnable parameters, with the categories it was published with.")
    preset: AnyPreset = Field(description="Preprocessing of its default weights.")
    min_size_px: int = Field(description="Smallest image side that trains.")
    max_size_px: int | None = Field(description="Null if only memory limits it.")
    size_step_px: int = Field(description="Image sides must be multiples of it.")
    options: list[ArchitectureOption] = Field(description="Choices of structure; a job sets them by name.")
    is_trainable: bool = Field(description="False if it can only predict, with its pretrained weights.")
    weights: list[PretrainedWeights]


class ArchitecturePage(Page[Architecture]):
    """Architectures by name."""


class Layer(BaseModel):
    """A module that holds parameters itself or has no children."""

    name: str
    type: str
    parameters: int


class ArchitectureDetails(Architecture):
    """An architecture with its layers."""

    layers: list[Layer] = Field(description="In the order of the network.")
