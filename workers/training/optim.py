"""Optimizers and schedules of the learning rate."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from workers.configs.fine_tune import ResolvedHyperparameters

_WARM_UP_FROM = 0.01  # of the learning rate


def make_optimizer(module: nn.Module, settings: ResolvedHyperparameters) -> Optimizer:
    """SGD with momentum, or AdamW (Loshchilov & Hutter 2019), over the parameters that learn."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if settings.optimizer == "adamw":
        return AdamW(learning, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    return SGD(learning, lr=settings.learning_rate, momentum=settings.momentum, weight_decay=settings.weight_decay)


def make_scheduler(optimizer: Optimizer, settings: ResolvedHyperparameters, *, steps_an_epoch: int) -> LRScheduler:
    """The learning rate of each step; one `step()` an optimizer update."""

    def factor(step: int) -> float:
        return _warm_up(step, settings) * _scheduled(step / max(1, steps_an_epoch), settings)

    return LambdaLR(optimizer, factor)


def _warm_up(step: int, settings: ResolvedHyperparameters) -> float:
    """From a hundredth to 1 in a straight line. Source: Goyal et al. 2017, sec. 2.2."""
    if step >= settings.warmup_steps:
        return 1.0
    return _WARM_UP_FROM + (1 - _WARM_UP_FROM) * step / settings.warmup_steps


def _scheduled(epoch: float, settings: ResolvedHyperparameters) -> float:
    """Cosine: Loshchilov & Hutter 2017, without restarts, falling with every step; the others fall between epochs."""
    if settings.schedule == "cosine":
        return (1 + math.cos(math.pi * min(1.0, epoch / settings.epochs))) / 2
    if settings.schedule == "step":
        return float(settings.gamma ** (int(epoch) // settings.step_epochs))
    if settings.schedule == "multi_step":
        return float(settings.gamma ** sum(int(epoch) >= milestone for milestone in settings.milestones))
    return 1.0
