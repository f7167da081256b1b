"""Creates optimizers and schedules of the learning rate."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from workers.configs.fine_tune import ResolvedHyperparameters

_WARM_UP_START = 0.01  # fraction of the learning rate at the first step of the warm-up


def make_optimizer(module: nn.Module, settings: ResolvedHyperparameters) -> Optimizer:
    """Creates SGD with momentum or AdamW (Loshchilov & Hutter 2019), for the parameters that are not frozen."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if settings.optimizer == "adamw":
        return AdamW(trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    return SGD(trained, lr=settings.learning_rate, momentum=settings.momentum, weight_decay=settings.weight_decay)


def make_scheduler(optimizer: Optimizer, settings: ResolvedHyperparameters, *, steps_per_epoch: int) -> LRScheduler:
    """Creates the schedule of the learning rate. Its `step()` is called once per optimizer update."""

    def factor(step: int) -> float:
        return _warm_up(step, settings) * _scheduled(step / max(1, steps_per_epoch), settings)

    return LambdaLR(optimizer, factor)


def _warm_up(step: int, settings: ResolvedHyperparameters) -> float:
    """The factor during the warm-up: rises linearly to 1. Source: Goyal et al. 2017, sec. 2.2."""
    if step >= settings.warmup_steps:
        return 1.0
    return _WARM_UP_START + (1 - _WARM_UP_START) * step / settings.warmup_steps


def _scheduled(epoch: float, settings: ResolvedHyperparameters) -> float:
    """The factor of the schedule. epoch: the number of epochs so far, with fractions.

    `cosine` (Loshchilov & Hutter 2017, without restarts) falls with every step, the others only between epochs.
    """
    if settings.schedule == "cosine":
        return (1 + math.cos(math.pi * min(1.0, epoch / settings.epochs))) / 2
    if settings.schedule == "step":
        return float(settings.gamma ** (int(epoch) // settings.step_epochs))
    if settings.schedule == "multi_step":
        return float(settings.gamma ** sum(int(epoch) >= milestone for milestone in settings.milestones))
    return 1.0
