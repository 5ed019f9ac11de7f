"""Before training: the first weights of a user's own network must follow from the seed."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bnexp.errors import UserError
from bnexp.models.initialization import build_with_state
from bnexp.training.trial.randomness import seeding_function

log = logging.getLogger(__name__)


def check_first_weights(key: str, build: Callable[[], nn.Module], network: nn.Module, seed: int) -> None:
    """Builds the network twice more, with its seed and with another one; ``key`` begins the messages.

    Raises UserError where two networks share a parameter, where ``build`` seeds a generator itself, so that
    all seeds share its numbers, and where the same seed does not give the weights of ``network`` again. Logs
    a warning where all seeds share all first weights for another reason, as where they are read from a file.
    """
    twin, state = build_with_state(build, seed)
    shared = {id(value) for value in network.parameters()} & {id(value) for value in twin.parameters()}
    if shared:
        name = next(name for name, value in network.named_parameters() if id(value) in shared)
        raise UserError(
            f"{key}: {name} is one tensor in all networks that it makes, and a sweep's next run would begin"
            " with trained weights; make each layer in __init__"
        )
    if not _have_equal_weights(network, twin):
        raise UserError(
            f"{key}: has other first weights each time that it is made with one seed; random numbers must"
            " come from the global generators of torch, numpy or Python, and no weight may stay torch.empty"
        )
    other, other_state = build_with_state(build, seed + 1)
    if function := seeding_function(state, other_state):
        raise UserError(
            f"{key}: calls {function} itself, and every seed would draw the same numbers; take the call"
            " out, bnexp sets the seed"
        )
    if _have_equal_weights(network, other):
        log.warning(f"{key}: all seeds begin with the same weights: they differ in the batches alone")


def _have_equal_weights(first: nn.Module, second: nn.Module) -> bool:
    """Whether two networks have the same parameters and buffers, nan included."""
    weights, other_weights = (
        {name: value.cpu() for name, value in network.state_dict().items() if isinstance(value, Tensor)}
        for network in (first, second)
    )
    return weights.keys() == other_weights.keys() and all(
        torch.equal(value.nan_to_num(), other_weights[name].nan_to_num()) for name, value in weights.items()
    )
