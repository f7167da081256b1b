"""Saves and loads checkpoints: everything that a run needs to continue.

A checkpoint is written under a temporary name and renamed, so it is either complete or missing. It contains only
tensors and primitives, so reading it runs no foreign code.
Source: "Saving and loading a general checkpoint", PyTorch tutorials.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from models.architectures.architecture import Architecture
from models.precision import OLDER_SPELLINGS
from models.store.state_dicts import for_publishing, save_state_dict
from models.store.storage import sync_directory
from workers.configs.fine_tune import ResolvedFineTune
from workers.errors import DiskFull
from workers.jobs.job import BestEpoch

FORMAT_VERSION = 1


@dataclass(kw_only=True, slots=True)
class TrainState:
    """Everything that training changes: the parameters, and how far the run has come."""

    module: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler
    epoch: int = 0  # finished epochs
    step: int = 0  # optimizer updates, over all epochs
    step_in_epoch: int = 0  # optimizer updates in the current epoch
    loss_sum: float = 0.0  # sum of the losses of `images`
    images: int = 0  # images of the current epoch whose losses were read
    best: BestEpoch | None = None

    def state_dict(self, config: ResolvedFineTune) -> dict[str, Any]:
        """The content of a checkpoint: tensors and primitives."""
        return {
            "format_version": FORMAT_VERSION,
            "config_hash": config_hash(config),
            "model": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "step_in_epoch": self.step_in_epoch,
            "loss_sum": self.loss_sum,
            "images": self.images,
            "best": self.best.model_dump() if self.best else None,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Restores the content of a checkpoint, including the random number generators."""
        self.module.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scheduler.load_state_dict(saved["scheduler"])
        self.epoch, self.step, self.step_in_epoch = saved["epoch"], saved["step"], saved["step_in_epoch"]
        self.loss_sum, self.images = saved["loss_sum"], saved["images"]
        self.best = BestEpoch.model_validate(saved["best"]) if saved["best"] else None
        torch.set_rng_state(saved["rng"])
        if saved["cuda_rng"] and len(saved["cuda_rng"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(saved["cuda_rng"])


def save_checkpoint(state: TrainState, config: ResolvedFineTune, path: Path) -> None:
    """Replaces `path`. After a failure, the previous checkpoint is still complete. Raises DiskFull, OSError."""
    temporary = path.with_suffix(".tmp")
    try:
        try:
            with temporary.open("wb") as file:
                torch.save(state.state_dict(config), file)
                file.flush()
                os.fsync(file.fileno())
        except RuntimeError as error:  # torch's zip writer raises this for an incomplete write, without the cause
            raise DiskFull(f"{path.name} could not be written: {error}") from error
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def load_checkpoint(state: TrainState, config: ResolvedFineTune, path: Path) -> bool:
    """Restores `state` from `path`. Returns False if there is no checkpoint, or if it has another configuration."""
    if not path.exists():
        return False
    saved = torch.load(path, map_location="cpu", weights_only=True)
    if saved["format_version"] != FORMAT_VERSION or saved["config_hash"] != config_hash(config):
        return False
    state.load_state_dict(saved)
    return True


def save_weights(module: nn.Module, architecture: Architecture, path: Path) -> None:
    """Replaces `path` by the weights that a version would contain, as safetensors. Raises DiskFull, OSError."""
    temporary = path.with_suffix(".tmp")
    try:
        try:
            save_state_dict(for_publishing(architecture, module.state_dict()), temporary)
        except SafetensorError as error:  # safetensors raises this for errors of the operating system
            raise DiskFull(f"{path.name} could not be written: {error}") from error
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def config_hash(config: ResolvedFineTune) -> str:
    """Hashes everything that training depends on, in the spelling of format 1, so that older checkpoints match."""
    irrelevant = {"publish_as", "promote"} | ({"selection_metric"} if config.selection_metric is None else set())
    relevant = config.model_dump_json(exclude=irrelevant)
    for older, today in OLDER_SPELLINGS.items():
        relevant = relevant.replace(f'"precision":"{today}"', f'"precision":"{older}"')
    return hashlib.sha256(relevant.encode()).hexdigest()
