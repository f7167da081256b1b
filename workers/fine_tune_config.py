"""What can be said of a fine-tuning job: every hyperparameter with its unit, range and off-value. No torch here.

`FineTuneConfig` is what a caller writes; `ResolvedFineTune` is what the trainer reads: nothing left to default.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.manifest import AnyPreset, DatasetReference

Strategy = Literal["feature_extraction", "fine_tune", "from_scratch"]
Promotion = Literal["if_better", "always", "never"]
Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["none", "step", "cosine"]
Precision = Literal["auto", "fp32", "bf16"]
Augmentation = Literal["none", "basic"]

_Finite = Field(allow_inf_nan=False)


class Hyperparameters(BaseModel):
    """The knobs of the optimization loop. Null means: chosen for you when the job is made, and shown in its config."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(10, ge=1, le=10_000, description="Passes over the training split.")
    batch_size: int = Field(32, ge=1, le=4096, description="Images an optimizer update.")
    optimizer: Optimizer = Field("sgd", description="SGD with momentum, or AdamW (Loshchilov & Hutter 2019).")
    learning_rate: Annotated[float, _Finite] | None = Field(
        None, gt=0, le=10, description="Null: 0.01 for SGD, 0.001 for AdamW; a tenth of it for `fine_tune`."
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Of SGD; 0 is off. AdamW ignores it.")
    weight_decay: Annotated[float, _Finite] = Field(0.0001, ge=0, le=1, description="0 is off.")
    schedule: Schedule = Field(
        "cosine", description="Learning rate an epoch: constant, times `gamma` every `step_epochs`, or cosine to 0."
    )
    step_epochs: int = Field(7, ge=1, le=10_000, description="Epochs between two falls of the `step` schedule.")
    gamma: float = Field(0.1, gt=0, le=1, description="Factor of the `step` schedule; 1 is off.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Of CrossEntropyLoss; 0 is off.")
    augmentation: Augmentation = Field(
        "basic", description="Training images: `basic` is a random resized crop and a mirror image half the time."
    )
    image_size_px: int | None = Field(
        None, ge=8, le=1024, description="Side of what the network sees; null: the architecture's own preset."
    )
    precision: Precision = Field(
        "auto", description="`bf16` is autocast to bfloat16; `auto` takes it where the device computes in it."
    )
    data_workers: int | None = Field(
        None,
        ge=0,
        le=64,
        description="Processes that decode training images; 0 decodes in the trainer; null: by cores.",
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Of weights, order and augmentation.")


class FineTuneConfig(BaseModel):
    """A fine-tuning job as a caller asks for it."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={
            "examples": [
                {
                    "type": "fine_tune",
                    "model": "resnet18",
                    "weights": "none",
                    "dataset": "ants-bees",
                    "publish_as": "ants-bees",
                    "promote": "if_better",
                    "hyperparameters": {"epochs": 5, "batch_size": 32},
                }
            ]
        },
    )

    type: Literal["fine_tune"] = "fine_tune"
    model: str = Field(
        description="Catalogue architecture, or a registered model to go on from: `ants-bees@production`."
    )
    weights: str | None = Field(
        None,
        description="`DEFAULT`, a named entry as `IMAGENET1K_V1`, a registered model, or `none`. "
        "Null: `DEFAULT` where the architecture has any and the strategy is not `from_scratch`.",
    )
    dataset: str = Field(description="`name` (its newest version) or `name/version`.")
    strategy: Strategy | None = Field(
        None,
        description="`feature_extraction`: only the head learns; `fine_tune`: everything; `from_scratch`: everything, "
        "from random weights. Null: `fine_tune`, or `from_scratch` without weights.",
    )
    publish_as: str | None = Field(None, description="Name of the model to publish a version of; null: the data set's.")
    promote: Promotion = Field(
        "if_better",
        description="Whether the new version becomes `production`: `if_better` when it beats the present one "
        "on this run's validation split, or there is none.",
    )
    hyperparameters: Hyperparameters = Hyperparameters()


class ResolvedHyperparameters(Hyperparameters):
    """The knobs with nothing left to choose."""

    learning_rate: Annotated[float, _Finite] = Field(gt=0, le=10)
    image_size_px: int = Field(ge=8, le=1024)


class ResolvedFineTune(BaseModel):
    """A fine-tuning job as it will run: names resolved to versions, defaults filled in. Written to `config.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["fine_tune"] = "fine_tune"
    task: Literal["classification"] = "classification"
    architecture: str
    base: str | None = Field(
        description="`resnet18.IMAGENET1K_V1` (torchvision's), `ants-bees/2` (registered), or null."
    )
    strategy: Strategy
    dataset: DatasetReference
    categories: tuple[str, ...]
    preset: AnyPreset
    publish_as: str
    promote: Promotion
    hyperparameters: ResolvedHyperparameters
