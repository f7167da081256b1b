"""What can be said of an evaluation: a model on a data set, without training. No torch here."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from models.manifest import AnyPreset, DatasetReference, Task
from models.precision import JobPrecision
from workers.datasets.dataset import SplitName


class EvaluateConfig(BaseModel):
    """An evaluation as a caller asks for it."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"type": "evaluate", "model": "ants-bees@production", "dataset": "ants-bees"}]},
    )

    type: Literal["evaluate"]
    model: str = Field(description="A registered model, or pretrained weights as `resnet50.IMAGENET1K_V2`.")
    dataset: str = Field(description="`name` (its newest version) or `name/version`. Its categories are the model's.")
    split: SplitName = Field("val", description="Which images.")
    batch_size: int = Field(8, ge=1, le=4096, description="Images going through together.")
    precision: JobPrecision = Field(
        "auto", description="As in training. `float32` gives numbers that can be compared between machines."
    )
    data_workers: int | None = Field(
        None, ge=0, le=64, description="Processes that decode images; 0 decodes in the trainer; null: by cores."
    )


class ResolvedEvaluate(BaseModel):
    """An evaluation as it will run: names resolved to versions. Written to `config.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["evaluate"] = "evaluate"
    task: Task
    model: str = Field(description="`ants-bees/2` (registered) or `resnet18.IMAGENET1K_V1` (torchvision's).")
    architecture: str
    options: dict[str, str] = Field(default_factory=dict)
    categories: tuple[str, ...] = Field(description="The model's.")
    preset: AnyPreset
    dataset: DatasetReference
    split: SplitName
    batch_size: int
    precision: JobPrecision
    data_workers: int | None

    @property
    def base(self) -> str:
        """The version that must not be deleted while the job needs it."""
        return self.model

    @property
    def publish_as(self) -> str:
        """The model whose job it is, for lists."""
        return self.model.partition("/")[0]
