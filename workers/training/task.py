"""The interface between the training loop and a task: classification, detection or segmentation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from torch import Tensor, nn

from models.errors import RegistryError
from models.store.registry import ModelVersion, Registry
from workers.configs.fine_tune import ResolvedFineTune, steps_per_epoch
from workers.configs.selection import default_metric
from workers.datasets.dataset import SplitName
from workers.jobs.job import BestEpoch
from workers.run_directory import RunDirectory
from workers.training.loading import EpochOptions
from workers.training.run_inputs import RunInputs

BatchT = TypeVar("BatchT")
BatchT_co = TypeVar("BatchT_co", covariant=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """The metrics of a network on one split. Each task adds what its report needs."""

    metrics: dict[str, float]
    weakness: str | None = None  # why the network is useless, see `weakness.py`; None: it is not


EvaluationT = TypeVar("EvaluationT", bound=Evaluation)


class Batches(Protocol[BatchT_co]):
    """The batches of an epoch, or of its rest."""

    def __iter__(self) -> Iterator[BatchT_co]: ...
    def __len__(self) -> int: ...


class TrainingTask(ABC, Generic[BatchT, EvaluationT]):
    """The parts of a run that depend on the task."""

    def __init__(self, inputs: RunInputs) -> None:
        self.inputs = inputs

    @property
    def decisive_metric(self) -> str:
        """The metric that chooses the best epoch; in an evaluation, the one that the task would choose by."""
        config = self.inputs.config
        return config.decisive_metric if isinstance(config, ResolvedFineTune) else default_metric(config.task)

    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return steps_per_epoch(len(self.inputs.train_images), batch_size=self.inputs.config.batch_size)

    def epoch_options(self, epoch: int, first_step: int) -> EpochOptions:
        """The options for the batches of an epoch, from its step `first_step` on."""
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
        """The indices of the training images in `batch`."""

    @abstractmethod
    def loss(self, module: nn.Module, batch: BatchT) -> Tensor:
        """The training loss of `batch`: a scalar tensor with its graph. `module` is in training mode."""

    @abstractmethod
    def evaluate(self, module: nn.Module) -> EvaluationT:
        """Evaluates `module`, in evaluation mode, on the validation split. The metrics contain `val/loss`."""

    @abstractmethod
    def compare(self, other: ModelVersion, registry: Registry) -> dict[str, float]:
        """The metrics of another version on the validation split of this run.

        Raises RegistryError if the versions cannot be compared, and the errors of loading the version.
        """

    @abstractmethod
    def write_report(self, run: RunDirectory, evaluation: EvaluationT, best: BestEpoch | None) -> None:
        """Writes report.json and drawings into the report directory of `run`. best: None if nothing was trained."""


def named_after(split: SplitName, metrics: dict[str, float]) -> dict[str, float]:
    """Returns the metrics of a split with its name, for instance `test/top1` for `val/top1`.

    A task measures whatever images it is given, and calls them `val`.
    """
    return {f"{split}/{name.removeprefix('val/')}": value for name, value in metrics.items()}


def check_comparable(other: ModelVersion, inputs: RunInputs) -> None:
    """Raises RegistryError unless `other` has the task and the categories of the run."""
    manifest, categories = other.manifest, inputs.config.categories
    if manifest.task != inputs.config.task:
        raise RegistryError(f"it is for {manifest.task}, not for {inputs.config.task}")
    if manifest.categories != categories:
        raise RegistryError(
            f"its categories are {', '.join(manifest.categories[:10])}, not {', '.join(categories[:10])}"
        )
