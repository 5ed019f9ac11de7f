"""Seeded starts: a parameter's first value is a function of (seed, its name)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from bnexp import seeding
from bnexp.models.blocks import InitName, Network


def build_seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """The network that ``build`` builds, the same for the same ``seed`` whatever ran before.

    Networks of ours start layer by layer from their names, so that two which differ in their norm, or in a
    layer more, agree in every layer they share. A foreign one draws its start in its own order, from a
    stream that the seed fixes. torch's CPU generator is left as it was.
    """
    with seeding.global_stream(seed, "init"):
        model = build()
    if isinstance(model, Network):
        initialize(model, seed, model.start)
    return model


@torch.no_grad()
def initialize(model: nn.Module, seed: int, kind: InitName) -> None:
    """Draws the weights and biases of each Linear and convolution, in place; other modules keep theirs.

    With fan_in the inputs that one output sums over:
    ``default``, torch's own: both uniform within 1 / sqrt(fan_in);
    ``kaiming``: weights normal with variance 2 / fan_in (He et al. 2015b, equation 10), biases 0.

    Each parameter has its own generator, seeded by (seed, "init", its qualified name).
    """
    for prefix, module in model.named_modules():
        if not isinstance(module, (nn.Linear, _ConvNd)):
            continue
        fan_in = module.weight[0].numel()
        for name, parameter in module.named_parameters(prefix, recurse=False):
            generator = seeding.generator(seed, "init", name)
            if kind == "default":
                bound = 1 / math.sqrt(fan_in)
                parameter.uniform_(-bound, bound, generator=generator)
            elif parameter is module.bias:
                parameter.zero_()
            else:
                parameter.normal_(0, math.sqrt(2 / fan_in), generator=generator)
