"""The training loop, top to bottom: epochs, steps, and what happens between them.

A step is one optimizer update on one batch. An epoch is one pass over the training split, followed by an evaluation on
the validation split. A network that computes on a GPU works in the background: Python waits for it only where it reads
a number from the device. So losses stay on the device, and `record_losses` reads several of them at once.

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

from workers.configs.selection import is_better
from workers.jobs.job import BestEpoch, JobProgress
from workers.training.checkpoint import TrainState
from workers.training.failures import NonFiniteLoss
from workers.training.journal import Journal
from workers.training.network import set_train_mode
from workers.training.task import Evaluation, TrainingTask

AnyTask = TrainingTask[Any, Any]
STEPS_PER_REPORT = 10  # losses are read and written to the journal every 10 steps: each read waits for the device


class RunRequests(Protocol):
    """Requests to a running trainer. The loop asks after every step."""

    def is_stop_requested(self) -> bool:
        """True: finish early, and publish the best weights so far."""

    def is_hand_back_requested(self) -> bool:
        """True: save a checkpoint and exit, so that another trainer continues the run."""


class RunHandedBack(Exception):
    """The run has stopped at a checkpoint, as requested, and another trainer can continue it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepLoss:
    """The loss of one step, not yet read from the device."""

    loss: Tensor  # scalar; mean over the images of the batch
    images: list[int]  # indices of these images in the training split


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingEnd:
    """How the training ended."""

    is_stopped: bool  # a stop request ended it before the last epoch
    best: Evaluation | None  # of the best epoch; None if an earlier attempt at the run has trained it


def train(
    state: TrainState,
    task: AnyTask,
    journal: Journal,
    requests: RunRequests,
    *,
    keep_best: Callable[[], None],
    checkpoint: Callable[[], None],
    checkpoint_interval_s: float = math.inf,
) -> TrainingEnd:
    """Trains from `state` to the last epoch.

    keep_best: stores the weights; called after each epoch that is the best so far.
    checkpoint: stores the whole state; called after each epoch, within an epoch every `checkpoint_interval_s`, and
    before the run is handed back.
    Raises NonFiniteLoss, RunHandedBack, and the errors of `keep_best` and `checkpoint`.
    """
    progress, settings = ProgressMeter(state, task), task.inputs.fine_tune.hyperparameters
    steps_per_epoch = task.steps_per_epoch()
    best: Evaluation | None = None
    while state.epoch < settings.epochs:
        is_stopped = train_one_epoch(state, task, journal, requests, progress, checkpoint, checkpoint_interval_s)
        train_loss = state.loss_sum / max(1, state.images)  # mean over the images of the epoch
        evaluation = task.evaluate(state.module)
        fraction = state.step_in_epoch / max(1, steps_per_epoch)  # below 1 only if a stop request ended the epoch
        finish_epoch(state)

        metrics = {"train/loss": train_loss, **evaluation.metrics}
        for name, value in metrics.items():
            if not math.isfinite(value):  # checked before anything is stored, so the last checkpoint stays good
                raise NonFiniteLoss(step=state.step, epoch=state.epoch, loss=value, name=name)
        metric = task.decisive_metric
        epoch = BestEpoch(metric=metric, value=metrics[metric], epoch=state.epoch, loss=evaluation.metrics["val/loss"])
        if state.best is None or is_better_epoch(epoch, state.best):
            state.best, best = epoch, evaluation
            keep_best()
        checkpoint()
        assert state.best is not None
        journal.epoch(epoch=state.epoch, step=state.step, metrics=metrics, best=state.best, fraction=fraction)
        journal.progress(progress.read(), is_due=True)

        if is_stopped and state.epoch < settings.epochs:
            return TrainingEnd(is_stopped=True, best=best)
        if requests.is_hand_back_requested():
            raise RunHandedBack
    return TrainingEnd(is_stopped=False, best=best)


def is_better_epoch(new: BestEpoch, old: BestEpoch) -> bool:
    """Compares by the metric that decides. If both have the same value, the smaller loss wins, then the earlier one."""
    if new.value == old.value:
        return new.loss < old.loss
    return is_better(new.metric, new.value, old.value)


def train_one_epoch(
    state: TrainState,
    task: AnyTask,
    journal: Journal,
    requests: RunRequests,
    progress: ProgressMeter,
    checkpoint: Callable[[], None],
    checkpoint_interval_s: float,
) -> bool:
    """Trains from `state` to the end of its epoch. Returns True if a stop request ended the epoch earlier."""
    set_train_mode(state.module, task.inputs.fine_tune)
    unread: list[StepLoss] = []
    saved_at = time.monotonic()
    batches = task.batches(epoch=state.epoch, first_step=state.step_in_epoch)  # a resumed epoch has only its rest
    steps = state.step_in_epoch + len(batches)
    for batch in batches:  # waits here if images are decoded more slowly than the network learns
        step = train_step(state, task, batch)
        unread.append(step)
        if len(unread) >= STEPS_PER_REPORT or state.step_in_epoch == steps or state.step == 1:
            record_losses(state, unread, task, journal)
        progress.add_images(len(step.images))
        journal.progress(progress.read())

        if requests.is_stop_requested():
            record_losses(state, unread, task, journal)
            return True
        if state.step_in_epoch == steps:
            return False  # `train` evaluates next, and then saves the checkpoint of the whole epoch
        is_handed_back = requests.is_hand_back_requested()
        if is_handed_back or time.monotonic() - saved_at > checkpoint_interval_s:
            record_losses(state, unread, task, journal)  # a checkpoint contains the losses up to its step
            checkpoint()
            saved_at = time.monotonic()
        if is_handed_back:
            raise RunHandedBack
    return False


def train_step(state: TrainState, task: AnyTask, batch: Any) -> StepLoss:
    """Makes one optimizer update. It does not wait for the device."""
    settings = task.inputs.fine_tune.hyperparameters
    state.optimizer.zero_grad(set_to_none=True)  # dropping gradients is cheaper than filling them with zeros
    loss = task.loss(state.module, batch)  # scalar
    loss.backward()  # type: ignore[no-untyped-call]
    if settings.max_gradient_norm:  # 0 is off
        clip_grad_norm_(state.module.parameters(), settings.max_gradient_norm)
    state.optimizer.step()
    state.scheduler.step()  # the learning rate changes with every step, not only with every epoch

    state.step += 1
    state.step_in_epoch += 1
    return StepLoss(loss=loss.detach(), images=task.indices(batch))  # without the graph, whose memory is freed


def record_losses(state: TrainState, unread: list[StepLoss], task: AnyTask, journal: Journal) -> None:
    """Adds the unread losses to the loss of the epoch and to the journal, and empties the list.

    Raises NonFiniteLoss, which names the images of the first step whose loss is not finite.
    """
    if not unread:
        return
    losses: list[float] = torch.stack([step.loss for step in unread]).tolist()  # waits for the device here
    for number, (loss, step) in enumerate(zip(losses, unread, strict=True), start=1):
        if not math.isfinite(loss):
            names = [task.inputs.train_images[index].name for index in step.images]
            at = state.step - len(unread) + number
            raise NonFiniteLoss(step=at, epoch=state.epoch + 1, loss=loss, images=names)
    images = sum(len(step.images) for step in unread)
    total = sum(loss * len(step.images) for loss, step in zip(losses, unread, strict=True))
    state.loss_sum += total
    state.images += images
    learning_rate = state.optimizer.param_groups[0]["lr"]
    journal.step(epoch=state.epoch + 1, step=state.step, loss=total / images, learning_rate=learning_rate)
    unread.clear()


def finish_epoch(state: TrainState) -> None:
    """Counts the epoch, and resets the sums for the next one."""
    state.epoch += 1
    state.step_in_epoch, state.images, state.loss_sum = 0, 0, 0.0


class ProgressMeter:
    """Measures how far the run has come, and estimates the time left from the speed of this attempt."""

    def __init__(self, state: TrainState, task: AnyTask) -> None:
        settings = task.inputs.fine_tune.hyperparameters
        self._state = state
        self._epochs = settings.epochs
        self._steps = settings.epochs * task.steps_per_epoch()  # of the whole run
        self._first_step = state.step  # of this attempt: above 0 for a resumed run
        self._began = time.monotonic()
        self._images = 0  # trained by this attempt

    def add_images(self, images: int) -> None:
        """Counts the images of one step."""
        self._images += images

    def read(self) -> JobProgress:
        """Returns the current progress."""
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
