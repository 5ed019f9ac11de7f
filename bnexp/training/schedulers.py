"""Schedulers that torch lacks."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class InverseSqrtLR(LRScheduler):
    """The learning rate lr * (1 + decay * t)^(-1/2) after t intervals.

    It falls slowly enough for the steps to reach any point, and fast enough for the noise of a stochastic
    gradient to average out (Robbins and Monro 1951).
    """

    def __init__(self, optimizer: Optimizer, decay: float) -> None:
        self.decay = decay
        super().__init__(optimizer)

    def get_lr(self) -> list[float]:  # type: ignore[override]
        factor = (1 + self.decay * self.last_epoch) ** -0.5
        return [factor * float(lr) for lr in self.base_lrs]
