"""What a task (classification, detection, segmentation) brings to the one training loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

from models.architectures.architecture import Architecture
from models.errors import RegistryError
from models.store.registry import ModelVersion, Registry
from workers.configs.evaluate import ResolvedEvaluate
from workers.configs.fine_tune import ResolvedFineTune
from workers.datasets.dataset import DatasetImage
from workers.jobs.job import BestEpoch
from workers.run_directory import RunDirectory
from workers.training.loading import EpochOptions

BatchT = TypeVar("BatchT")
BatchT_co = TypeVar("BatchT_co", covariant=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """What a run trains on, with and where; nothing of it changes."""

    config: ResolvedFineTune | ResolvedEvaluate
    architecture: Architecture
    root: Path  # what the paths of the images are relative to
    cache: Path  # what is computed once a data set version; may be deleted at any time
    train_images: Sequence[DatasetImage]
    val_images: Sequence[DatasetImage]
    device: torch.device
    precision: Literal["fp32", "bf16"]
    data_workers: int

    @property
    def fine_tune(self) -> ResolvedFineTune:
        """The configuration of a run that trains."""
        assert isinstance(self.config, ResolvedFineTune)
        return self.config


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

    def __init__(self, ground: Ground) -> None:
        self.ground = ground

    def steps_an_epoch(self) -> int:
        """How many batches an epoch has."""
        return self.ground.fine_tune.steps_an_epoch(len(self.ground.train_images))

    def epoch_options(self, epoch: int, first_step: int) -> EpochOptions:
        """How the batches of an epoch are made, from its step `first_step` on."""
        settings = self.ground.fine_tune.hyperparameters
        return EpochOptions(
            batch_size=settings.batch_size,
            augmentation=settings.augmentation,
            seed=settings.seed,
            epoch=epoch,
            first_step=first_step,
            data_workers=self.ground.data_workers,
            is_pinned=self.ground.device.type == "cuda",
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


def check_comparable(other: ModelVersion, ground: Ground) -> None:
    """Raises RegistryError unless `other` answers the run's question in the run's words."""
    manifest, categories = other.manifest, ground.config.categories
    if manifest.task != ground.config.task:
        raise RegistryError(f"it is for {manifest.task}, not for {ground.config.task}")
    if manifest.categories != categories:
        raise RegistryError(
            f"its categories are {', '.join(manifest.categories[:10])}, not {', '.join(categories[:10])}"
        )
