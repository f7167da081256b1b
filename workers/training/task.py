"""What a task (classification, detection, segmentation) brings to the one training loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar

from torch import Tensor, nn

from models.errors import RegistryError
from models.store.registry import ModelVersion, Registry
from workers.jobs.job import BestEpoch
from workers.run_directory import RunDirectory
from workers.training.loading import EpochOptions
from workers.training.run_inputs import RunInputs

BatchT = TypeVar("BatchT")
BatchT_co = TypeVar("BatchT_co", covariant=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """How a network does on one split; each task adds what its report needs."""

    metrics: dict[str, float]


EvaluationT = TypeVar("EvaluationT", bound=Evaluation)


class Batches(Protocol[BatchT_co]):
    """The batches of an epoch, or of the rest of one."""

    def __iter__(self) -> Iterator[BatchT_co]: ...
    def __len__(self) -> int: ...


class TrainingTask(ABC, Generic[BatchT, EvaluationT]):
    """The parts of a run that depend on the task."""

    decisive_metric: ClassVar[str]  # chooses the best epoch; larger is better

    def __init__(self, inputs: RunInputs) -> None:
        self.inputs = inputs

    def steps_an_epoch(self) -> int:
        """How many batches an epoch has."""
        return self.inputs.fine_tune.steps_an_epoch(len(self.inputs.train_images))

    def epoch_options(self, epoch: int, first_step: int) -> EpochOptions:
        """How the batches of an epoch are made, from its step `first_step` on."""
        settings = self.inputs.fine_tune.hyperparameters
        return EpochOptions(
            batch_size=settings.batch_size,
            augmentation=settings.augmentation,
            seed=settings.seed,
            epoch=epoch,
            first_step=first_step,
            data_workers=self.inputs.data_workers,
            is_pinned=self.inputs.device.type == "cuda",
        )

    @abstractmethod
    def batches(self, *, epoch: int, first_step: int) -> Batches[BatchT]:
        """The training batches of an epoch, from its step `first_step` on."""

    @abstractmethod
    def indices(self, batch: BatchT) -> list[int]:
        """Which training images are in it."""

    @abstractmethod
    def loss(self, module: nn.Module, batch: BatchT) -> Tensor:
        """The training loss, a scalar, with its graph. `module` is in training mode."""

    @abstractmethod
    def evaluate(self, module: nn.Module) -> EvaluationT:
        """How `module`, put into evaluation mode, does on the validation split. The metrics have `val/loss`."""

    @abstractmethod
    def compare(self, other: ModelVersion, registry: Registry) -> dict[str, float]:
        """The metrics of another version on this run's validation split.

        Raises RegistryError where that makes no sense, and what loading it raises.
        """

    @abstractmethod
    def write_report(self, run: RunDirectory, evaluation: EvaluationT, best: BestEpoch | None) -> None:
        """Writes report.json and pictures into the run's report directory. best: None when nothing was trained."""


def check_comparable(other: ModelVersion, inputs: RunInputs) -> None:
    """Raises RegistryError unless `other` answers the run's question in the run's words."""
    manifest, categories = other.manifest, inputs.config.categories
    if manifest.task != inputs.config.task:
        raise RegistryError(f"it is for {manifest.task}, not for {inputs.config.task}")
    if manifest.categories != categories:
        raise RegistryError(
            f"its categories are {', '.join(manifest.categories[:10])}, not {', '.join(categories[:10])}"
        )
