"""Random numbers follow from the run's seed: no part seeds a global generator, or draws from its own."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bnexp.config.schema import Config
from bnexp.config.source import is_own_target
from bnexp.errors import UserError
from bnexp.seeding import RandomState, global_rng_state, seed_global
from bnexp.training.trainer import Trainer

FUNCTIONS = {
    "cpu": "torch.manual_seed",
    "device": "torch.cuda.manual_seed",
    "random": "random.seed",
    "numpy": "np.random.seed",
}


def seeding_function(state: RandomState, other: RandomState) -> str | None:
    """The function that has set a generator alike in two states; the blocks before had different seeds."""
    for generator, function in FUNCTIONS.items():
        if state[generator] is not None and _plain(state[generator]) == _plain(other[generator]):
            return function
    return None


def _plain(state: object) -> object:
    return state.tolist() if isinstance(state, Tensor) else state


def own_generators(config: Config, trainer: Trainer) -> dict[tuple[str, str], str]:
    """The state of each random generator of a part, by (the part's key, the generator's name).

    It is an attribute of the part or of its class, or a variable of the module of its class.
    """
    parts: list[tuple[str, Any]] = [(config.model.title, module) for module in trainer.model.modules()]
    parts += [(config.loss.title, module) for module in trainer.loss.modules()]
    parts += [
        (config.optimizer.title, trainer.optimizer),
        (config.scheduler.title, trainer.schedule.scheduler),
    ]
    return {(title, name): state for title, part in parts for name, state in _generators_of(part)}


def _generators_of(part: Any) -> Iterator[tuple[str, str]]:
    own_classes = [each for each in type(part).__mro__ if is_own_target(f"{each.__module__}.{each.__name__}")]
    modules = [sys.modules.get(each.__module__) for each in own_classes]
    variables = [dict(getattr(holder, "__dict__", {})) for holder in (part, *own_classes, *modules)]
    for name, value in chain.from_iterable(each.items() for each in variables):
        if isinstance(value, random.SystemRandom):
            continue  # it has no state
        if isinstance(value, torch.Generator):
            yield name, str(value.get_state().tolist())
        elif isinstance(value, random.Random):
            yield name, str(value.getstate())
        elif isinstance(value, np.random.RandomState):
            yield name, str(value.get_state())
        elif isinstance(value, np.random.Generator):
            yield name, str(value.bit_generator.state)


def check_no_own_generators(
    config: Config, trainer: Trainer, first_states: dict[tuple[str, str], str]
) -> None:
    """Raises UserError where a step has drawn from a generator of a part: no checkpoint holds its state."""
    for (title, name), state in own_generators(config, trainer).items():
        if first_states.get((title, name)) != state:
            raise UserError(
                f"{title}: draws from {name}, a generator of its own, and no checkpoint holds its state; draw"
                " from the global generators of torch, numpy or Python, which bnexp seeds and saves"
            )


def check_no_part_seeds(
    config: Config, trainer: Trainer, twin: Trainer, batch: tuple[Tensor, Tensor]
) -> None:
    """Takes one more step with each of two equal trainers, from different seeds.

    ``batch`` holds images (B, C, S, S) and labels (B,). Raises UserError for a part after which a global
    generator is in the same state both times: it would draw the same numbers in every step, and dropout
    would always leave out the same units.
    """
    titles = (config.model.title, config.loss.title, config.optimizer.title)
    all_states = []
    for number, each in enumerate((trainer, twin)):
        seed_global(config.seed + number, "trial")
        all_states.append(_states_in_a_step(each, *batch))
    for title, state, other in zip(titles, *all_states, strict=True):
        if function := seeding_function(state, other):
            raise UserError(
                f"{title}: calls {function} in each step, so that each draws the same random numbers, dropout"
                " too; take the call out, bnexp sets the seed"
            )


def _states_in_a_step(trainer: Trainer, images: Tensor, labels: Tensor) -> list[RandomState]:
    """The generators after the forward pass, the loss, and the optimizer's step with the last gradients."""
    device = trainer.device.torch_device
    trainer.train()
    states = []
    with trainer.device.autocast():
        logits = trainer.training_network(images)
        states.append(global_rng_state(device))
        trainer.loss(logits, labels)
        states.append(global_rng_state(device))
    trainer.optimizer_step()
    return [*states, global_rng_state(device)]
