"""The optimization loop, top to bottom.

Source: "Optimizing model parameters" and "Training with PyTorch", PyTorch tutorials.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from workers.jobs.job import BestEpoch, JobProgress
from workers.training.checkpoint import TrainState
from workers.training.failures import NonFiniteLoss
from workers.training.journal import Journal
from workers.training.network import set_train_mode
from workers.training.task import TrainingTask

AnyTask = TrainingTask[Any, Any]
STEPS_A_REPORT = 10  # the loss is read from the device, and the journal written, that often


class Requests(Protocol):
    """What others want of the run, asked before every step."""

    def is_stop_requested(self) -> bool: ...
    def is_hand_back_requested(self) -> bool: ...


class RunHandedBack(Exception):
    """The run stopped at a checkpoint, as asked, for another trainer to go on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Step:
    """What one optimizer update left behind, unread: reading the loss waits for the device."""

    loss: Tensor  # scalar
    images: list[int]  # indices into the training images


def train(
    state: TrainState,
    task: AnyTask,
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
    pace, settings = Pace(state, task), task.inputs.fine_tune.hyperparameters
    while state.epoch < settings.epochs:
        is_stopped = train_one_epoch(state, task, journal, requests, pace, checkpoint, checkpoint_interval_s)
        train_loss = state.loss_sum / max(1, state.images)
        evaluation = task.evaluate(state.module)
        finish_epoch(state)
        metrics = {"train/loss": train_loss, **evaluation.metrics}
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise NonFiniteLoss(step=state.step, epoch=state.epoch, loss=value, name=name)
        value, loss = evaluation.metrics[task.decisive_metric], evaluation.metrics["val/loss"]
        if state.best is None or (value, -loss) > (state.best.value, -state.best.loss):
            state.best = BestEpoch(metric=task.decisive_metric, value=value, epoch=state.epoch, loss=loss)
            keep_best()
        checkpoint()
        assert state.best is not None
        journal.epoch(epoch=state.epoch, step=state.step, metrics=metrics, best=state.best)
        journal.progress(pace.progress(), is_due=True)
        if is_stopped and state.epoch < settings.epochs:
            return True
        if requests.is_hand_back_requested():
            raise RunHandedBack
    return False


def train_one_epoch(
    state: TrainState,
    task: AnyTask,
    journal: Journal,
    requests: Requests,
    pace: Pace,
    checkpoint: Callable[[], None],
    checkpoint_interval_s: float,
) -> bool:
    """One pass over the training split, from where `state` stands in it; whether it was stopped within."""
    settings = task.inputs.fine_tune.hyperparameters
    set_train_mode(state.module, task.inputs.fine_tune)
    recent: list[_Step] = []
    saved_at = time.monotonic()
    batches = task.batches(epoch=state.epoch, first_step=state.step_in_epoch)
    steps = state.step_in_epoch + len(batches)
    for batch in batches:
        state.optimizer.zero_grad(set_to_none=True)
        loss = task.loss(state.module, batch)  # scalar
        loss.backward()  # type: ignore[no-untyped-call]
        if settings.max_gradient_norm:
            clip_grad_norm_(state.module.parameters(), settings.max_gradient_norm)
        state.optimizer.step()
        state.scheduler.step()

        state.step += 1
        state.step_in_epoch += 1
        recent.append(_Step(loss=loss.detach(), images=task.indices(batch)))
        if len(recent) >= STEPS_A_REPORT or state.step_in_epoch == steps or state.step == 1:
            note_losses(state, recent, task, journal)
        pace.saw(len(task.indices(batch)))
        journal.progress(pace.progress())

        if requests.is_stop_requested():
            note_losses(state, recent, task, journal)
            return True
        if state.step_in_epoch == steps:
            return False  # the checkpoint of the whole epoch is next
        is_handed_back = requests.is_hand_back_requested()
        if is_handed_back or time.monotonic() - saved_at > checkpoint_interval_s:
            note_losses(state, recent, task, journal)
            checkpoint()
            saved_at = time.monotonic()
        if is_handed_back:
            raise RunHandedBack
    return False


def note_losses(state: TrainState, recent: list[_Step], task: AnyTask, journal: Journal) -> None:
    """Adds the latest steps to the epoch's loss and empties the list; waits for the device here.

    Raises NonFiniteLoss, which names the images of the first step whose loss was not finite.
    """
    if not recent:
        return
    losses: list[float] = torch.stack([step.loss for step in recent]).tolist()
    for number, (loss, step) in enumerate(zip(losses, recent, strict=True), start=1):
        if not math.isfinite(loss):
            names = [task.inputs.train_images[index].name for index in step.images]
            at = state.step - len(recent) + number
            raise NonFiniteLoss(step=at, epoch=state.epoch + 1, loss=loss, images=names)
    images = sum(len(step.images) for step in recent)
    total = sum(loss * len(step.images) for loss, step in zip(losses, recent, strict=True))
    state.loss_sum += total
    state.images += images
    learning_rate = state.optimizer.param_groups[0]["lr"]
    journal.step(epoch=state.epoch + 1, step=state.step, loss=total / images, learning_rate=learning_rate)
    recent.clear()


def finish_epoch(state: TrainState) -> None:
    """Counts the epoch and begins a new one."""
    state.epoch += 1
    state.step_in_epoch, state.images, state.loss_sum = 0, 0, 0.0


class Pace:
    """How far the run is and how long it will take, by what this attempt has done so far."""

    def __init__(self, state: TrainState, task: AnyTask) -> None:
        settings = task.inputs.fine_tune.hyperparameters
        self._state = state
        self._epochs = settings.epochs
        self._steps = settings.epochs * task.steps_an_epoch()
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
