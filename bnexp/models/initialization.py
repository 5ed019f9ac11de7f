"""The first weights of a network: each parameter is a function of the seed and of its name."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from bnexp import seeding
from bnexp.models.blocks import InitName, Network

GAINS = {"kaiming": 2.0, "lecun": 1.0}  # the variance of a weight, times fan_in


def build_seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """The network that ``build`` returns. Its weights depend on ``seed`` alone, not on earlier random draws.

    The networks of this package get each layer's weights from the layer's name. Two networks that differ in
    their norm, or in an additional layer, then agree in every layer that both have. Any other network draws
    its weights in its own order, from a stream that the seed fixes. torch's CPU generator is not changed.
    """
    return build_with_state(build, seed)[0]


def build_with_state(build: Callable[[], nn.Module], seed: int) -> tuple[nn.Module, seeding.RandomState]:
    """As ``build_seeded``; also the states of the global generators when ``build`` had returned."""
    with seeding.global_stream(seed, "init"):
        model = build()
        state = seeding.global_rng_state(torch.device("cpu"))
    if isinstance(model, Network):
        initialize(model, seed, model.init)
        model.adjust_first_weights()
    return model, state


@torch.no_grad()
def initialize(model: nn.Module, seed: int, init: InitName) -> None:
    """Draws weights and biases of each Linear and convolution in place. Other modules keep theirs.

    fan_in is the number of inputs that one output sums over.
    ``default`` is torch's: weights and biases are uniform in ±1 / sqrt(fan_in).
    ``kaiming``: weights are normal with variance 2 / fan_in (He et al. 2015b, equation 10), biases are 0.
    ``lecun``: weights are normal with variance 1 / fan_in (LeCun et al. 1998, section 4.6), biases are 0.

    Each parameter has its own generator, seeded by (seed, "init", the parameter's qualified name).
    """
    for prefix, module in model.named_modules():
        if not isinstance(module, (nn.Linear, _ConvNd)):
            continue
        fan_in = module.weight[0].numel()
        for name, parameter in module.named_parameters(prefix, recurse=False):
            generator = seeding.generator(seed, "init", name)
            if init == "default":
                bound = 1 / math.sqrt(fan_in)
                parameter.uniform_(-bound, bound, generator=generator)
            elif parameter is module.bias:
                parameter.zero_()
            else:
                parameter.normal_(0, math.sqrt(GAINS[init] / fan_in), generator=generator)
