"""Leaves a network as it was, whatever a probe did to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from bnexp.seeding import global_rng_state, set_global_rng_state


@contextmanager
def preserved(network: nn.Module) -> Iterator[None]:
    """Restores parameters, buffers, gradients, modes and the global generators after the block."""
    device = next(network.parameters()).device
    state = global_rng_state(device)
    tensors = [*network.parameters(), *network.buffers()]
    with torch.no_grad():
        values = [tensor.detach().clone(memory_format=torch.preserve_format) for tensor in tensors]
    gradients = [(parameter, parameter.grad, parameter.requires_grad) for parameter in network.parameters()]
    modes = [(module, module.training) for module in network.modules()]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, values, strict=True):
                tensor.copy_(value)
        for parameter, gradient, requires_grad in gradients:
            parameter.grad = gradient
            parameter.requires_grad_(requires_grad)
        for module, training in modes:
            module.training = training
        set_global_rng_state(state, device)
