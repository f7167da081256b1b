"""What can be said of a fine-tuning job: every hyperparameter with its unit, range and off-value. No torch here.

`FineTuneConfig` is what a caller writes; `ResolvedFineTune` is what the trainer reads: nothing left to default.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from models.manifest import AnyPreset, DatasetReference, Task
from models.precision import JobPrecision

Strategy = Literal["feature_extraction", "fine_tune", "from_scratch"]
Promotion = Literal["if_better", "always", "never"]
Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["none", "step", "multi_step", "cosine"]
Augmentation = Literal["none", "basic"]

_Finite = Field(allow_inf_nan=False)


def _listed(value: object) -> object:
    """`8,11` is how a command line says it."""
    return tuple(value.split(",")) if isinstance(value, str) else value


class Hyperparameters(BaseModel):
    """The knobs of the optimization loop. Null means: chosen for you when the job is made, and shown in its config."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="Passes over the training split. Null: 10; 40 for boxes or masks from scratch.",
    )
    batch_size: int | None = Field(
        None, ge=1, le=4096, description="Images an optimizer update. Null: 32; for boxes and masks 4, from scratch 8."
    )
    optimizer: Optimizer | None = Field(
        None,
        description="SGD with momentum, or AdamW (Loshchilov & Hutter 2019). "
        "Null: `sgd`; `adamw` for boxes and masks from scratch.",
    )
    learning_rate: Annotated[float, _Finite] | None = Field(
        None,
        gt=0,
        le=10,
        description="Null: 0.01 for SGD, 0.001 for AdamW; a tenth of it to `fine_tune` a classifier, or with AdamW.",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Of SGD; 0 is off. AdamW ignores it.")
    weight_decay: Annotated[float, _Finite] = Field(0.0001, ge=0, le=1, description="0 is off.")
    schedule: Schedule = Field(
        "cosine",
        description="Learning rate: constant, times `gamma` every `step_epochs` or after each of `milestones`, "
        "or cosine to 0.",
    )
    step_epochs: int = Field(7, ge=1, le=10_000, description="Epochs between two falls of the `step` schedule.")
    milestones: Annotated[tuple[Annotated[int, Field(ge=1, le=10_000)], ...], BeforeValidator(_listed)] = Field(
        (), max_length=100, description="Finished epochs at which the `multi_step` schedule falls."
    )
    gamma: float = Field(0.1, gt=0, le=1, description="Factor of the `step` and `multi_step` schedules; 1 is off.")
    warmup_steps: int | None = Field(
        None,
        ge=0,
        le=100_000,
        description="Optimizer updates in which the learning rate rises to its full value; 0 is off. "
        "Null: off for classification, an epoch but at most 500 for the others.",
    )
    max_gradient_norm: Annotated[float, _Finite] | None = Field(
        None,
        ge=0,
        le=1e6,
        description="Longer gradients are shortened to this; 0 is off. Null: off for classification, else 10.",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Of CrossEntropyLoss; 0 is off.")
    augmentation: Augmentation = Field(
        "basic",
        description="Training images: `basic` is a random crop at a random scale, a mirror image half the time and, "
        "for boxes and masks, a change of colours.",
    )
    image_size_px: int | None = Field(
        None,
        ge=8,
        le=2048,
        description="Side of what the network sees, for boxes and masks the shorter one; null: the preset's own.",
    )
    precision: JobPrecision = Field(
        "auto",
        description="`bfloat16` runs matrix products and convolutions in bfloat16; `auto` does so if the device has it "
        "in hardware. The older spellings `fp32` and `bf16` are read too.",
    )
    data_workers: int | None = Field(
        None,
        ge=0,
        le=64,
        description="Processes that decode training images; 0 decodes in the trainer; null: by cores.",
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Of weights, order and augmentation.")

    @model_validator(mode="after")
    def _has_milestones(self) -> Hyperparameters:
        if self.schedule == "multi_step" and not self.milestones:
            msg = "the schedule `multi_step` needs `milestones`, for instance [8, 11]"
            raise ValueError(msg)
        return self


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
    variant: str | None = Field(None, description="Of architectures that have several: `modern` or `v1` of `yolo`.")
    backbone: str | None = Field(
        None,
        description="Of architectures that let it be chosen: `resnet18`. Null: the first of theirs, or a small one for "
        "few images from random weights.",
    )
    width: str | None = Field(None, description="Of `segnet`: `full`, or a `quarter` of its channels for CPUs.")
    backbone_weights: str | None = Field(
        None,
        description="Of the feature extractor alone, when `weights` are none: `DEFAULT` or a named entry of its "
        "classification network, or a registered classifier of that architecture; null or `none`: random.",
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

    epochs: int = Field(ge=1, le=10_000)
    batch_size: int = Field(ge=1, le=4096)
    optimizer: Optimizer
    learning_rate: Annotated[float, _Finite] = Field(gt=0, le=10)
    warmup_steps: int = Field(0, ge=0, le=100_000)
    max_gradient_norm: Annotated[float, _Finite] = Field(0.0, ge=0, le=1e6)
    image_size_px: int = Field(ge=8, le=2048)


class ResolvedFineTune(BaseModel):
    """A fine-tuning job as it will run: names resolved to versions, defaults filled in. Written to `config.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["fine_tune"] = "fine_tune"
    task: Task = "classification"
    architecture: str
    options: dict[str, str] = Field(default_factory=dict, description="Of the architecture, where it has any.")
    base: str | None = Field(
        description="`resnet18.IMAGENET1K_V1` (torchvision's), `ants-bees/2` (registered), or null."
    )
    backbone_base: str | None = Field(None, description="The same for the feature extractor alone.")
    strategy: Strategy
    dataset: DatasetReference
    categories: tuple[str, ...]
    preset: AnyPreset
    publish_as: str
    promote: Promotion
    hyperparameters: ResolvedHyperparameters

    @property
    def batch_size(self) -> int:
        """Images an optimizer update."""
        return self.hyperparameters.batch_size

    @property
    def precision(self) -> JobPrecision:
        """The precision that the network is trained in."""
        return self.hyperparameters.precision

    @property
    def data_workers(self) -> int | None:
        """Processes that decode images; None: by cores."""
        return self.hyperparameters.data_workers

    def steps_an_epoch(self, images: int) -> int:
        """How many batches an epoch of so many training images has.

        A last batch of a single image is left out: batch normalization has no statistics of one (Ioffe & Szegedy 2015).
        """
        full, rest = divmod(images, self.hyperparameters.batch_size)
        is_dropped = rest == 1 and full > 0
        return full if rest == 0 or is_dropped else full + 1
