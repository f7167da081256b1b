"""Optimizers and schedules of the learning rate."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LRScheduler, StepLR

from workers.fine_tune_config import ResolvedHyperparameters


def make_optimizer(module: nn.Module, settings: ResolvedHyperparameters) -> Optimizer:
    """SGD with momentum, or AdamW (Loshchilov & Hutter 2019), over the parameters that learn."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if settings.optimizer == "adamw":
        return AdamW(learning, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    return SGD(learning, lr=settings.learning_rate, momentum=settings.momentum, weight_decay=settings.weight_decay)


def make_scheduler(optimizer: Optimizer, settings: ResolvedHyperparameters) -> LRScheduler:
    """The learning rate of each epoch; one `step()` an epoch. Cosine: Loshchilov & Hutter 2017, without restarts."""
    if settings.schedule == "step":
        return StepLR(optimizer, step_size=settings.step_epochs, gamma=settings.gamma)
    if settings.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=settings.epochs)
    return ConstantLR(optimizer, factor=1.0)
