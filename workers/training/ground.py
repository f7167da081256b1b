"""What every run does around its work, whether it trains or only evaluates."""

from __future__ import annotations

import platform
from importlib.metadata import distributions
from pathlib import Path

import torch

from models.architectures.catalog import get_architecture
from workers.datasets.store import DatasetStore
from workers.run_directory import RunConfig, RunDirectory
from workers.training.device import pick_device, pick_precision
from workers.training.loading import default_data_workers
from workers.training.task import Ground


class FenceLost(Exception):
    """Another attempt owns the run now: nothing that counts may be written."""


def make_ground(config: RunConfig, home: Path) -> Ground:
    """Data, device and precision of a run. Raises what the data set store raises."""
    job = config.job
    device = pick_device(config.device)
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True  # the same seed gives the same model; costs a few per cent
    store = DatasetStore(home / "datasets")
    dataset = store.get(job.dataset.name, job.dataset.version)
    workers = job.data_workers
    return Ground(
        config=job,
        architecture=get_architecture(job.architecture),
        root=dataset.images_dir,
        cache=dataset.path / "cache",
        train_images=store.images(dataset, "train"),
        val_images=store.images(dataset, "val"),
        device=device,
        precision=pick_precision(job.precision, device),
        data_workers=default_data_workers(device) if workers is None else workers,
    )


def check_fence(run: RunDirectory, token: int | None) -> None:
    """Raises FenceLost if another attempt owns the run by now."""
    if token is not None and run.read_fence() != token:
        raise FenceLost(f"Attempt with token {token} is no longer the one that may write to {run.path}.")


def library_versions() -> dict[str, str]:
    """For the manifest: what made the weights."""
    names = ("torch", "torchvision", "safetensors", "pillow", "fovea")
    installed = {name: distribution.version for name in names for distribution in distributions(name=name)}
    return {"python": platform.python_version(), **installed}
