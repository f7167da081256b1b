"""Jobs and stores for tests."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models.manifest import DatasetReference, Preset
from workers.configs.fine_tune import ResolvedFineTune, ResolvedHyperparameters
from workers.jobs.job import Job
from workers.jobs.store import JobStore, new_job_id

GREY_28 = Preset(channels=1, resize_px=28, crop_px=28, mean=(0.5,), std=(0.5,))


def a_config(*, dataset: DatasetReference | None = None, **changes: Any) -> ResolvedFineTune:
    """garment_classifier from scratch on two categories, for two epochs."""
    hyperparameters = {
        "epochs": 2,
        "batch_size": 8,
        "learning_rate": 0.01,
        "image_size_px": 28,
        "augmentation": "none",
        "optimizer": "sgd",
        "precision": "float32",  # the same numbers on every processor
    }
    hyperparameters |= changes.pop("hyperparameters", {})
    values: dict[str, Any] = {
        "architecture": "garment_classifier",
        "base": None,
        "strategy": "from_scratch",
        "dataset": dataset or DatasetReference(name="shapes", version=1, fingerprint="0" * 64),
        "categories": ("circle", "square"),
        "preset": GREY_28,
        "publish_as": "shapes",
        "promote": "if_better",
        "hyperparameters": ResolvedHyperparameters.model_validate(hyperparameters),
    }
    return ResolvedFineTune.model_validate({**values, **changes})


def a_job(**changes: Any) -> Job:
    """A queued job."""
    config = changes.pop("config", None) or a_config()
    return Job(id=new_job_id(), created_at=datetime.now(UTC), config=config, **changes)


def a_store(redis_url: str, home: Path, *, lease_s: float = 30.0) -> JobStore:
    """A store on `home`."""
    return JobStore(redis_url, home / "runs", lease_s=lease_s)
