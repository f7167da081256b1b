"""The configuration of an evaluation: a model on a dataset, without training. Needs no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from models.manifest import AnyPreset, DatasetReference, Task
from models.precision import JobPrecision
from workers.configs.fine_tune import BatchSize
from workers.datasets.dataset import SplitName


class EvaluateConfig(BaseModel):
    """An evaluation as a caller requests it."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"type": "evaluate", "model": "ants-bees@production", "dataset": "ants-bees"}]},
    )

    type: Literal["evaluate"]
    model: str = Field(description="A registered model, or pretrained weights such as `resnet50.IMAGENET1K_V2`.")
    dataset: str = Field(
        description="`name` (its latest version) or `name/version`. The model must know all its categories."
    )
    split: SplitName = Field("val", description="The split to evaluate on. Not every dataset has `test`.")
    batch_size: BatchSize = Field(8, description="Images per batch.")
    precision: JobPrecision = Field(
        "auto", description="As in training. `float32` gives numbers that can be compared between machines."
    )
    data_workers: int | None = Field(
        None,
        ge=0,
        le=64,
        description="Processes that decode images; 0 decodes in the trainer. "
        "Null: up to 8, depending on the cores, with a GPU; else 0.",
    )


class ResolvedEvaluate(BaseModel):
    """An evaluation as it runs: names are versions. `config.json` contains it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["evaluate"] = "evaluate"
    task: Task
    model: str = Field(description="`ants-bees/2` (registered) or `resnet18.IMAGENET1K_V1` (torchvision).")
    architecture: str
    options: dict[str, str] = Field(default_factory=dict)
    categories: tuple[str, ...] = Field(description="The categories of the model.")
    preset: AnyPreset
    dataset: DatasetReference
    split: SplitName
    batch_size: int
    precision: JobPrecision
    data_workers: int | None

    @property
    def base(self) -> str:
        """The version that must not be deleted before the job has ended."""
        return self.model

    @property
    def publish_as(self) -> str:
        """The name of the model, by which lists of jobs are filtered."""
        return self.model.partition("/")[0]
