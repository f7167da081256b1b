"""The inputs of a run: its configuration, images and device. They are read before the work begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from models.architectures.architecture import Architecture
from models.architectures.catalog import get_architecture
from models.drawing.fonts import Fonts
from models.precision import FloatPrecision
from workers.configs.fine_tune import ResolvedFineTune
from workers.datasets.dataset import DatasetImage
from workers.datasets.store import DatasetStore
from workers.jobs.job import AnyConfig
from workers.run_directory import RunConfig
from workers.training.device import pick_device, pick_precision
from workers.training.loading import default_data_workers


@dataclass(frozen=True, kw_only=True, slots=True)
class RunInputs:
    """The configuration, images and device of a run; none of them changes while it runs."""

    config: AnyConfig
    architecture: Architecture
    root: Path  # the paths of the images are relative to it
    cache: Path  # what is computed once per dataset version; may be deleted at any time
    train_images: Sequence[DatasetImage]
    val_images: Sequence[DatasetImage]
    test_images: Sequence[DatasetImage]  # empty if the dataset has no such split
    device: torch.device
    precision: FloatPrecision
    data_workers: int
    fonts: Fonts  # for the images in the report

    @property
    def fine_tune(self) -> ResolvedFineTune:
        """The configuration of a run that trains."""
        assert isinstance(self.config, ResolvedFineTune)
        return self.config


def make_run_inputs(config: RunConfig, home: Path) -> RunInputs:
    """Reads the images and chooses the device and the precision. Raises the errors of the dataset store."""
    job = config.job
    device = pick_device(config.device)
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True  # the same seed gives the same model, at a cost of a few percent
    store = DatasetStore(home / "datasets")
    dataset = store.get(job.dataset.name, job.dataset.version)
    workers = job.data_workers
    return RunInputs(
        config=job,
        architecture=get_architecture(job.architecture),
        root=dataset.images_dir,
        cache=dataset.path / "cache",
        train_images=store.images(dataset, "train"),
        val_images=store.images(dataset, "val"),
        test_images=store.images(dataset, "test") if "test" in dataset.info.splits else [],
        device=device,
        precision=pick_precision(job.precision, device),
        fonts=Fonts(config.font),
        data_workers=default_data_workers(device) if workers is None else workers,
    )
