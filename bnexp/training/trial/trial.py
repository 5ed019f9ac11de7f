"""The trial as a whole: what a user's own parts do in a few steps, before the training begins."""

from __future__ import annotations

from collections.abc import Callable

from bnexp.config.schema import Config
from bnexp.data import DataSplits
from bnexp.seeding import global_rng_state, set_global_rng_state
from bnexp.training.trainer import Trainer
from bnexp.training.trial.checkpoint import check_checkpoint, check_is_separate, check_next_step
from bnexp.training.trial.loss import check_loss_is_unchanged
from bnexp.training.trial.numbers import shared_numbers, warn_of_numbers
from bnexp.training.trial.randomness import check_no_own_generators, check_no_part_seeds, own_generators
from bnexp.training.trial.schedule import check_equal_lr, check_lr, step_count, try_schedule
from bnexp.training.trial.shared_tensors import copied_state
from bnexp.training.trial.signal_handlers import same_handlers
from bnexp.training.trial.step import (
    first_batch,
    try_evaluation,
    try_evaluation_sizes,
    try_last_step,
    try_step,
    warn_of_mixed_images,
)
from bnexp.training.trial.unsaved import check_tensors_are_saved


def try_components(config: Config, splits: DataSplits, make_trainer: Callable[[], Trainer]) -> None:
    """Trains a trainer of its own for a few steps and evaluates it; random numbers stay as they were.

    A second trainer is restored from what a checkpoint of the first holds, must give the same logits, and
    must take the same next step. Raises UserError that names the key of the part which fails.
    """
    trainer, restored = make_trainer(), make_trainer()
    first_state, numbers = copied_state(restored), shared_numbers(config, trainer)
    generators = own_generators(config, trainer)
    state = global_rng_state(trainer.device.torch_device)
    try:
        batch = first_batch(config, splits)
        check_lr(config, trainer, "at the beginning")
        with same_handlers(config.model.title):
            try_step(config, trainer, batch, len(splits.classes))
            try_last_step(config, trainer, splits)
            logits = try_evaluation(config, trainer, batch, len(splits.classes))
            try_evaluation_sizes(config, trainer, splits)
        check_no_own_generators(config, trainer, generators)
        check_is_separate(config, restored, first_state)
        warn_of_mixed_images(config, restored, batch[0])
        check_loss_is_unchanged(config.loss.title, restored.loss, trainer.loss, logits, batch[1])
        count = step_count(config, trainer, splits.train.steps(config.batch_size))
        schedule_steps = range(1, count + 1)
        try_schedule(config, trainer, schedule_steps[:1])
        check_checkpoint(config, trainer, restored, batch[0])
        check_tensors_are_saved(config, trainer)
        warn_of_numbers(config, trainer, restored, numbers)
        check_next_step(config, trainer, restored, batch)
        check_no_part_seeds(config, trainer, restored, batch)
        for each in (trainer, restored):
            try_schedule(config, each, schedule_steps[1:2])
        check_equal_lr(config, trainer, restored)
        try_schedule(config, trainer, schedule_steps[2:])
    finally:
        set_global_rng_state(state, trainer.device.torch_device)
