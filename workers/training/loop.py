"""The optimization loop, top to bottom.

Source: "Optimizing model parameters" and "Training with PyTorch", PyTorch tutorials.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from models.manifest import Preset
from workers.datasets.dataset import DatasetImage
from workers.fine_tune_config import ResolvedFineTune
from workers.jobs import BestEpoch, JobProgress
from workers.training.checkpoint import TrainState
from workers.training.classification import (
    DECISIVE_METRIC,
    Evaluation,
    evaluate,
    set_train_mode,
    to_network,
    training_loss,
)
from workers.training.device import autocast
from workers.training.failures import NonFiniteLoss
from workers.training.images import steps_an_epoch, training_batches
from workers.training.journal import Journal

STEPS_A_REPORT = 10  # the loss is read from the device, and the journal written, that often


class Requests(Protocol):
    """What others want of the run, asked before every step."""

    def is_stop_requested(self) -> bool: ...
    def is_hand_back_requested(self) -> bool: ...


class RunHandedBack(Exception):
    """The run stopped at a checkpoint, as asked, for another trainer to go on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """What a run trains on, with and where; nothing of it changes."""

    config: ResolvedFineTune
    root: Path
    train_images: Sequence[DatasetImage]
    val_images: Sequence[DatasetImage]
    device: torch.device
    precision: Literal["fp32", "bf16"]
    data_workers: int
    preset: Preset
    auxiliary_weight: float  # of each auxiliary head's loss

    def evaluate(self, state: TrainState) -> Evaluation:
        """How the network does on the validation split now."""
        return evaluate(
            state.module,
            self.val_images,
            self.root,
            self.preset,
            batch_size=self.config.hyperparameters.batch_size,
            device=self.device,
            precision=self.precision,
            data_workers=self.data_workers,
        )


def train(
    state: TrainState,
    ground: Ground,
    journal: Journal,
    requests: Requests,
    *,
    keep_best: Callable[[], None],
    checkpoint: Callable[[], None],
    checkpoint_interval_s: float = math.inf,
) -> bool:
    """Trains from where `state` stands to the last epoch; whether it was stopped before that.

    `keep_best` stores the weights of a new best epoch; `checkpoint` stores everything, after every epoch, and within
    one after `checkpoint_interval_s` or when the run is handed back. Raises NonFiniteLoss, RunHandedBack and what the
    two raise.
    """
    pace = Pace(state, ground)
    while state.epoch < ground.config.hyperparameters.epochs:
        is_stopped = train_one_epoch(state, ground, journal, requests, pace, checkpoint, checkpoint_interval_s)
        train_loss = state.loss_sum / max(1, state.images)
        evaluation = ground.evaluate(state)
        finish_epoch(state)
        metrics = {"train/loss": train_loss, **evaluation.metrics}
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise NonFiniteLoss(step=state.step, epoch=state.epoch, loss=value, name=name)
        value, loss = evaluation.metrics[DECISIVE_METRIC], evaluation.metrics["val/loss"]
        if state.best is None or (value, -loss) > (state.best.value, -state.best.loss):
            state.best = BestEpoch(metric=DECISIVE_METRIC, value=value, epoch=state.epoch, loss=loss)
            keep_best()
        checkpoint()
        assert state.best is not None
        journal.epoch(epoch=state.epoch, step=state.step, metrics=metrics, best=state.best)
        journal.progress(pace.progress(), is_due=True)
        if is_stopped and state.epoch < ground.config.hyperparameters.epochs:
            return True
        if requests.is_hand_back_requested():
            raise RunHandedBack
    return False


def train_one_epoch(
    state: TrainState,
    ground: Ground,
    journal: Journal,
    requests: Requests,
    pace: Pace,
    checkpoint: Callable[[], None],
    checkpoint_interval_s: float,
) -> bool:
    """One pass over the training split, from where `state` stands in it; whether it was stopped within."""
    settings, preset = ground.config.hyperparameters, ground.preset
    set_train_mode(state.module, ground.config.strategy)
    recent: list[tuple[Tensor, int]] = []
    saved_at = time.monotonic()
    batches = training_batches(
        ground.train_images,
        ground.root,
        preset,
        batch_size=settings.batch_size,
        augmentation=settings.augmentation,
        seed=settings.seed,
        epoch=state.epoch,
        first_step=state.step_in_epoch,
        data_workers=ground.data_workers,
        is_pinned=ground.device.type == "cuda",
    )
    steps = state.step_in_epoch + len(batches)
    for batch in batches:
        images, targets = to_network(batch, preset, ground.device)  # [B, C, h, w], [B]

        state.optimizer.zero_grad(set_to_none=True)
        with autocast(ground.device, ground.precision):
            outputs = state.module(images)  # [B, K], or one such a classifier
            loss = training_loss(
                outputs, targets, label_smoothing=settings.label_smoothing, auxiliary_weight=ground.auxiliary_weight
            )
        loss.backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()

        state.step += 1
        state.step_in_epoch += 1
        recent.append((loss.detach() * len(images), len(images)))
        if len(recent) >= STEPS_A_REPORT or state.step_in_epoch == steps or state.step == 1:
            note_losses(state, recent, journal)
        pace.saw(len(images))
        journal.progress(pace.progress())

        if requests.is_stop_requested():
            note_losses(state, recent, journal)
            return True
        if state.step_in_epoch == steps:
            return False  # the checkpoint of the whole epoch is next
        is_handed_back = requests.is_hand_back_requested()
        if is_handed_back or time.monotonic() - saved_at > checkpoint_interval_s:
            note_losses(state, recent, journal)
            checkpoint()
            saved_at = time.monotonic()
        if is_handed_back:
            raise RunHandedBack
    return False


def note_losses(state: TrainState, recent: list[tuple[Tensor, int]], journal: Journal) -> None:
    """Adds the latest steps to the epoch's loss and empties the list; waits for the device here.

    recent: for each step its loss times its images, a scalar tensor, and its images. Raises NonFiniteLoss.
    """
    if not recent:
        return
    total = float(torch.stack([loss for loss, _ in recent]).sum())
    if not math.isfinite(total):
        raise NonFiniteLoss(step=state.step, epoch=state.epoch + 1, loss=total)
    images = sum(count for _, count in recent)
    state.loss_sum += total
    state.images += images
    learning_rate = state.optimizer.param_groups[0]["lr"]
    journal.step(epoch=state.epoch + 1, step=state.step, loss=total / images, learning_rate=learning_rate)
    recent.clear()


def finish_epoch(state: TrainState) -> None:
    """Counts the epoch and begins a new one."""
    state.scheduler.step()
    state.epoch += 1
    state.step_in_epoch, state.images, state.loss_sum = 0, 0, 0.0


class Pace:
    """How far the run is and how long it will take, by what this attempt has done so far."""

    def __init__(self, state: TrainState, ground: Ground) -> None:
        settings = ground.config.hyperparameters
        self._state = state
        self._epochs = settings.epochs
        self._steps = settings.epochs * steps_an_epoch(len(ground.train_images), settings.batch_size)
        self._first_step = state.step
        self._began = time.monotonic()
        self._images = 0

    def saw(self, images: int) -> None:
        self._images += images

    def progress(self) -> JobProgress:
        done = self._state.step - self._first_step
        elapsed_s = time.monotonic() - self._began
        left = max(0, self._steps - self._state.step)
        return JobProgress(
            epoch=self._state.epoch,
            epochs=self._epochs,
            step=self._state.step,
            steps=self._steps,
            fraction=min(1.0, self._state.step / max(1, self._steps)),
            eta_s=round(elapsed_s / done * left, 1) if done else None,
            images_per_s=round(self._images / elapsed_s, 1) if self._images else None,
        )
