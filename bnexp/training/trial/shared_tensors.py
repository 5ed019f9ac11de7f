"""Which tensors change where they should not: images, labels and logits, and the state of a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from bnexp.errors import UserError
from bnexp.training.trainer import Trainer


@contextmanager
def unchanged(title: str, **tensors: Tensor) -> Iterator[None]:
    """Raises UserError, naming the part and the tensor, if one has other values after the block."""
    copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    yield
    for name, tensor in tensors.items():
        if not equal(tensor.detach(), copies[name]):
            raise UserError(
                f"{title}: changes the {name} in place, and what reads them later would get other ones;"
                f" begin with {name} = {name}.clone()"
            )


def copied_state(trainer: Trainer) -> dict[str, Tensor]:
    """A copy of the tensors in the network's state dict."""
    state = trainer.model.state_dict()
    return {name: value.clone() for name, value in state.items() if isinstance(value, Tensor)}


def changed_tensor(trainer: Trainer, state: dict[str, Tensor]) -> str | None:
    """The name of the first tensor that is no longer as in ``state``; None if all are."""
    current = trainer.model.state_dict()
    return next((name for name, value in state.items() if not equal(current[name], value)), None)


def equal(value: Tensor, other: Tensor) -> bool:
    """Whether all numbers agree, nan included."""
    return torch.equal(value.nan_to_num(), other.nan_to_num())
