"""Images, labels and logits are read by others too: no part may change them in place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from bnexp.errors import UserError


@contextmanager
def unchanged(title: str, **tensors: Tensor) -> Iterator[None]:
    """Raises UserError, naming the part and the tensor, if one has other values after the block."""
    copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    yield
    for name, tensor in tensors.items():
        if not torch.equal(tensor.detach().nan_to_num(), copies[name].nan_to_num()):
            raise UserError(
                f"{title}: changes the {name} in place, and what reads them later would get other ones;"
                f" begin with {name} = {name}.clone()"
            )
