"""Tensors of an optimizer or scheduler that no checkpoint holds, as slow weights in a Python list.

Their effect may come many steps later: a resumed run would give other results, and no error would say so.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from bnexp.config.schema import Config
from bnexp.errors import UserError
from bnexp.training.trainer import Trainer
from bnexp.training.trial.shared_tensors import equal
from bnexp.training.trial.tensors import named_tensors

# Of an optimizer. If its state_dict leaves out a part of them, the next step after a restart shows it.
SAVED_ATTRIBUTES = ("state", "param_groups")


def check_tensors_are_saved(config: Config, trainer: Trainer) -> None:
    """Raises UserError for a tensor with the shape of a parameter whose values no state_dict holds.

    Parameters, buffers and gradients of the network, and views of them, may lie anywhere.
    """
    parameters = dict(trainer.model.named_parameters())
    names = {id(value): name for name, value in parameters.items()}
    shapes = {value.shape for value in parameters.values()}
    shapes.add(torch.Size([sum(value.numel() for value in trainer.parameters)]))  # all in one vector
    network = [*parameters.values(), *trainer.model.buffers()]
    gradients = [value.grad for value in parameters.values() if value.grad is not None]
    known = {None, *map(_storage, (*network, *gradients))}
    scheduler = trainer.schedule.scheduler
    parts: list[tuple[str, Optimizer | LRScheduler]] = [(config.optimizer.title, trainer.optimizer)]
    parts += [(config.scheduler.title, scheduler)] if scheduler is not None else []
    saved = [tensor for _, part in parts for _, tensor in named_tensors(part.state_dict())]
    for title, part in parts:
        attributes = {name: value for name, value in vars(part).items() if name not in SAVED_ATTRIBUTES}
        for attribute, value in attributes.items():
            for name, tensor in named_tensors(value, attribute, names):
                is_state = tensor.numel() > 1 and tensor.shape in shapes and _storage(tensor) not in known
                if is_state and not any(_holds(other, tensor) for other in saved):
                    raise UserError(
                        f"{title}: {name} is in no checkpoint, and a resumed run would begin with its first"
                        " values again; its state_dict must hold it, as that of an optimizer holds self.state"
                    )


def _storage(value: Tensor) -> int | None:
    """Where the numbers lie, which views share; None for a sparse tensor and the like."""
    return value.untyped_storage().data_ptr() if value.layout is torch.strided else None


def _holds(saved: Tensor, value: Tensor) -> bool:
    """Whether ``saved`` has the numbers of ``value``, perhaps on another device."""
    is_alike = saved.shape == value.shape and saved.dtype == value.dtype
    return is_alike and equal(saved.detach().to(value.device), value.detach())
