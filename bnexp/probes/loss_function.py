"""The loss of a network on fixed images as a function of its parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bnexp.seeding import global_rng_state, set_global_rng_state

Parameters = Mapping[str, Tensor]


class LossFunction:
    """``loss(network(images), labels)`` as a function of the trained parameters, by name.

    The network is in the mode in which it stands. Each call sees the buffers and the noise of the moment at
    which the function was made: the value depends on the parameters alone. The network's own parameters and
    buffers stay as they are.
    """

    def __init__(self, network: nn.Module, loss: nn.Module, images: Tensor, labels: Tensor) -> None:
        self.network, self.loss, self.images, self.labels = network, loss, images, labels
        self.parameters: Parameters = {
            name: value for name, value in network.named_parameters() if value.requires_grad
        }
        self._buffers = {name: value.clone() for name, value in network.named_buffers()}
        self._device = images.device
        self._noise = global_rng_state(images.device)

    def __call__(self, parameters: Parameters) -> Tensor:
        """The loss ()."""
        set_global_rng_state(self._noise, self._device)
        buffers = {name: value.clone() for name, value in self._buffers.items()}
        logits = functional_call(self.network, {**buffers, **parameters}, (self.images,))
        return self.loss(logits, self.labels)

    def gradient(self, parameters: Parameters | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss () and its gradient at ``parameters`` (the network's own), by name."""
        points = parameters or self.parameters
        leaves = {name: value.detach().requires_grad_() for name, value in points.items()}
        with torch.enable_grad():
            loss = self(leaves)
            gradients = torch.autograd.grad(
                loss, list(leaves.values()), allow_unused=True, materialize_grads=True
            )
        return loss.detach(), dict(zip(leaves, gradients, strict=True))


def moved(parameters: Parameters, direction: Parameters, factor: float) -> dict[str, Tensor]:
    """``parameters + factor · direction``."""
    with torch.no_grad():
        return {name: value + factor * direction[name] for name, value in parameters.items()}


def dot(first: Parameters, second: Parameters) -> float:
    """The inner product over all parameters, summed in float64."""
    products = [(value.double() * second[name].double()).sum() for name, value in first.items()]
    return float(torch.stack(products).sum())


def norm(values: Parameters) -> float:
    """The Euclidean norm over all parameters."""
    return dot(values, values) ** 0.5


def distance(first: Parameters, second: Parameters) -> float:
    """The Euclidean distance between two points, or two gradients."""
    return norm({name: value - second[name] for name, value in first.items()})
