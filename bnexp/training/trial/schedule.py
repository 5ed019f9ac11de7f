"""The scheduler in a trial: each of its steps gives a learning rate, also after it was saved and read."""

from __future__ import annotations

import math

from torch import Tensor

from bnexp.config.schema import Config
from bnexp.errors import UserError
from bnexp.training.blame import blamed_on
from bnexp.training.trainer import Trainer

METRICS = tuple(f"{split}/{name}" for split in ("train", "val", "test") for name in ("loss", "accuracy"))
MAX_STEPS = 10_000  # of a scheduler in a trial: they take 0.1 s


def step_count(config: Config, trainer: Trainer, steps_per_epoch: int) -> int:
    """How many steps of the scheduler a trial takes: those of the run, as far as that is quick."""
    count = config.epochs * (steps_per_epoch if trainer.schedule.interval == "step" else 1)
    return min(count, MAX_STEPS)


def try_schedule(config: Config, trainer: Trainer, numbers: range) -> None:
    """Takes these steps of the scheduler; raises UserError where one fails or gives no learning rate."""
    schedule = trainer.schedule
    if schedule.scheduler is None:
        return
    for number in numbers:
        with blamed_on(config.scheduler.title, f"its step {number} fails"):
            schedule.after_step()
            schedule.after_epoch(dict.fromkeys(METRICS, 1.0))
        check_lr(config, trainer, f"after step {number} of the scheduler")


def check_lr(config: Config, trainer: Trainer, moment: str) -> None:
    """Raises UserError for a learning rate that is no finite number of at least 0; ``moment`` says when."""
    component = config.optimizer if config.scheduler.target is None else config.scheduler
    for group in trainer.optimizer.param_groups:
        lr = group.get("lr", 0.0)  # ``try_step`` reports a group without one
        is_number = isinstance(lr, int | float | Tensor) and math.isfinite(lr) and lr >= 0
        if not is_number:
            raise UserError(
                f"{component.title}: the learning rate is {lr} {moment}; must be a finite number, at least 0"
            )


def check_equal_lr(config: Config, trainer: Trainer, restored: Trainer) -> None:
    """Raises UserError where the restored scheduler gives another learning rate."""
    rates, restored_rates = (
        [float(group.get("lr", 0)) for group in each.optimizer.param_groups] for each in (trainer, restored)
    )
    if not all(map(math.isclose, rates, restored_rates)):
        raise UserError(
            f"{config.scheduler.title}: gives the learning rate {restored_rates[0]:g} after it"
            f" was saved and read again, not {rates[0]:g}; its state_dict must hold all that it counts"
        )
