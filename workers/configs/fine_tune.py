"""The configuration of a fine-tuning job: every hyperparameter with its unit, range and off-value. Needs no torch.

A caller writes a `FineTuneConfig`. The trainer reads a `ResolvedFineTune`, in which every field has a value.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from models.manifest import AnyPreset, DatasetReference, Task
from models.precision import JobPrecision
from workers.configs.selection import default_metric

Strategy = Literal["feature_extraction", "fine_tune", "from_scratch"]
Promotion = Literal["if_better", "always", "never"]
Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["none", "step", "multi_step", "cosine"]
Augmentation = Literal["none", "basic"]

# The ranges of hyperparameters, for both classes below.
Epochs = Annotated[int, Field(ge=1, le=10_000)]
BatchSize = Annotated[int, Field(ge=1, le=4096)]
LearningRate = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]
WarmupSteps = Annotated[int, Field(ge=0, le=100_000)]
MaxGradientNorm = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
ImageSizePx = Annotated[int, Field(ge=8, le=2048)]


def _from_command_line(value: object) -> object:
    """Splits `8,11`, the form of a list on the command line."""
    return tuple(value.split(",")) if isinstance(value, str) else value


class Hyperparameters(BaseModel):
    """The settings of the training loop. Null means that Fovea chooses a value, which the config of the job shows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: Epochs | None = Field(
        None,
        description="Passes over the training split. Null: 10, or 40 for detection and segmentation from scratch.",
    )
    batch_size: BatchSize | None = Field(
        None,
        description="Images per optimizer update. Null: 32 for classification; otherwise 4, or 8 from scratch.",
    )
    optimizer: Optimizer | None = Field(
        None,
        description="`sgd` is SGD with momentum, `adamw` is AdamW (Loshchilov & Hutter 2019). "
        "Null: `adamw` for segmentation and for detection from scratch, else `sgd`.",
    )
    learning_rate: LearningRate | None = Field(
        None,
        description="Factor of the optimizer updates. Null: 0.01 for `sgd`, 0.001 for `adamw`; a tenth of that for the "
        "strategy `fine_tune`, except for detection and segmentation with `sgd`.",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD; 0 is off. AdamW ignores it.")
    weight_decay: float = Field(0.0001, ge=0, le=1, allow_inf_nan=False, description="Weight decay; 0 is off.")
    schedule: Schedule = Field(
        "cosine",
        description="Learning rate over time. `none`: constant; `step`: times `gamma` after every `step_epochs`; "
        "`multi_step`: times `gamma` after each of `milestones`; `cosine`: falls to 0.",
    )
    step_epochs: Epochs = Field(7, description="Epochs after which the `step` schedule applies `gamma`.")
    milestones: Annotated[tuple[Epochs, ...], BeforeValidator(_from_command_line)] = Field(
        (), max_length=100, description="Finished epochs after which the `multi_step` schedule applies `gamma`."
    )
    gamma: float = Field(0.1, gt=0, le=1, description="Factor of the `step` and `multi_step` schedules; 1 is off.")
    warmup_steps: WarmupSteps | None = Field(
        None,
        description="Optimizer updates in which the learning rate rises to its full value; 0 is off. "
        "Null: 0 for classification, else one epoch but at most 500.",
    )
    max_gradient_norm: MaxGradientNorm | None = Field(
        None,
        description="Gradients with a larger norm are scaled down to this norm; 0 is off. "
        "Null: 0 for classification, else 10.",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Label smoothing of the cross entropy, for classification; 0 is off."
    )
    augmentation: Augmentation = Field(
        "basic",
        description="Random changes to training images. `basic`: a crop at a random scale, mirrored half the time, and "
        "other colours for detection and segmentation; `none`: no changes.",
    )
    image_size_px: ImageSizePx | None = Field(
        None,
        description="Side of the network's input in pixels; the shorter side for detection and segmentation. "
        "Null: that of the preset.",
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
        description="Processes that decode training images; 0 decodes in the trainer. "
        "Null: up to 8, depending on the cores, with a GPU; else 0.",
    )
    seed: int = Field(
        0, ge=0, le=2**31 - 1, description="Seed of the initial weights, the order of the images and the augmentation."
    )

    @model_validator(mode="after")
    def _has_milestones(self) -> Hyperparameters:
        if self.schedule == "multi_step" and not self.milestones:
            msg = "the schedule `multi_step` needs `milestones`, for example [8, 11]"
            raise ValueError(msg)
        return self


class FineTuneConfig(BaseModel):
    """A fine-tuning job as a caller requests it."""

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
        description="An architecture of the catalogue, or a registered model to start from: `ants-bees@production`."
    )
    weights: str | None = Field(
        None,
        description="Weights to start from: `DEFAULT`, the name of pretrained weights such as `IMAGENET1K_V1`, a "
        "registered model, or `none`. Null: `DEFAULT` if the architecture has pretrained weights and the strategy is "
        "not `from_scratch`.",
    )
    variant: str | None = Field(
        None, description="Variant of an architecture that has several: `modern` or `v1` for `yolo`."
    )
    backbone: str | None = Field(
        None,
        description="Backbone of an architecture that has a choice: `resnet18`. Null: the default of the architecture, "
        "or a small one for a small dataset and random weights.",
    )
    width: str | None = Field(None, description="Width of `segnet`: `full`, or `quarter` of the channels for CPUs.")
    backbone_weights: str | None = Field(
        None,
        description="Weights of the backbone alone, if `weights` is `none`: `DEFAULT`, the name of pretrained weights "
        "of its classification network, or a registered classifier of that architecture. Null or `none`: random.",
    )
    dataset: str = Field(description="`name` (its latest version) or `name/version`.")
    strategy: Strategy | None = Field(
        None,
        description="`feature_extraction` trains only the head; `fine_tune` trains everything; `from_scratch` trains "
        "everything from random weights. Null: `fine_tune`, or `from_scratch` without weights.",
    )
    publish_as: str | None = Field(
        None, description="Name of the model to publish a version of. Null: the name of the dataset."
    )
    promote: Promotion = Field(
        "if_better",
        description="Decides whether the new version becomes `production`. `if_better`: if there is none, or if it is "
        "better than the current one on the validation split of this run; never if it answers one category only, or is "
        "no better than chance.",
    )
    selection_metric: str | None = Field(
        None,
        description="The metric that chooses the best epoch, and compares versions. Classification: `val/top1`, "
        "`val/loss`, `val/f1` (the mean over the categories) or, with more than five categories, `val/top5`. "
        "Detection: `val/map`, `val/loss`, `val/map50`, `val/map75`, `val/mar100` or, with masks, `val/mask_map`, "
        "`val/mask_map50`, `val/mask_map75`. Segmentation: `val/miou`, `val/loss`, `val/pixel_accuracy`. Less is "
        "better for `val/loss`. If two epochs are equal, the smaller loss decides. Null: the first of the task.",
    )
    hyperparameters: Hyperparameters = Hyperparameters()


class ResolvedHyperparameters(Hyperparameters):
    """The settings of the training loop, with a value for every field."""

    epochs: Epochs
    batch_size: BatchSize
    optimizer: Optimizer
    learning_rate: LearningRate
    warmup_steps: WarmupSteps = 0
    max_gradient_norm: MaxGradientNorm = 0.0
    image_size_px: ImageSizePx


class ResolvedFineTune(BaseModel):
    """A fine-tuning job as it runs: names are versions, and all fields have values. `config.json` contains it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["fine_tune"] = "fine_tune"
    task: Task = "classification"
    architecture: str
    options: dict[str, str] = Field(
        default_factory=dict, description="Options of the architecture: `variant`, `backbone`, `width`."
    )
    base: str | None = Field(
        description="The weights to start from: `resnet18.IMAGENET1K_V1` (torchvision), `ants-bees/2` (registered), or "
        "null for random weights."
    )
    backbone_base: str | None = Field(None, description="The same for the backbone alone.")
    strategy: Strategy
    dataset: DatasetReference
    categories: tuple[str, ...]
    preset: AnyPreset
    publish_as: str
    promote: Promotion
    selection_metric: str | None = Field(
        None, description="The metric that chooses the best epoch. Null in jobs of earlier versions: that of the task."
    )
    hyperparameters: ResolvedHyperparameters

    @property
    def decisive_metric(self) -> str:
        """The metric that chooses the best epoch."""
        return self.selection_metric or default_metric(self.task)

    @property
    def batch_size(self) -> int:
        """Images per optimizer update."""
        return self.hyperparameters.batch_size

    @property
    def precision(self) -> JobPrecision:
        """The precision that the network is trained in."""
        return self.hyperparameters.precision

    @property
    def data_workers(self) -> int | None:
        """Processes that decode images; None means that Fovea chooses the number."""
        return self.hyperparameters.data_workers


def steps_per_epoch(images: int, *, batch_size: int) -> int:
    """Returns the number of batches in an epoch of `images` training images.

    A last batch of a single image is dropped: batch normalization has no statistics of one (Ioffe & Szegedy 2015).
    """
    full, rest = divmod(images, batch_size)
    is_dropped = rest == 1 and full > 0
    return full if rest == 0 or is_dropped else full + 1
