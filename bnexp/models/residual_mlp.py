"""The residual part of an MLP: blocks that add a branch of two Linears to their input."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from bnexp.models.blocks import LayerFactory, Scale, Shift
from bnexp.models.norms import Norm

BlockName = Literal["plain", "skipinit", "fixup"]


class ResidualBlock(nn.Module):
    """Adds a branch to its input: norm-activation-Linear twice (He et al. 2016, with Linears).

    ``plain``: the sum as it is.
    ``skipinit``: a learned factor at the end of the branch starts at 0, so that the block starts as the
    identity (De & Smith 2020, arXiv 2002.10444).
    ``fixup``: a learned factor at the end of the branch starts at 1, and a learned summand stands before each
    activation and each Linear (Zhang et al. 2019, arXiv 1901.09321: the third of their rules).
    ``apply_fixup`` has the other two. (The rules were read in summaries of the paper.)

    The Linears have biases in every kind, and so the same first weights, but for what fixup multiplies.
    """

    def __init__(
        self, units: int, kind: BlockName, *, norm: Norm, activation: LayerFactory, dropout: float
    ) -> None:
        super().__init__()
        branch: OrderedDict[str, nn.Module] = OrderedDict()
        for number in ("1", "2"):
            branch |= norm_and_activation(units, kind, norm=norm, activation=activation, number=number)
            if dropout and number == "2":
                branch["dropout"] = nn.Dropout(dropout)
            branch[f"linear{number}"] = nn.Linear(units, units)
        if kind != "plain":
            branch["scale"] = Scale(0.0 if kind == "skipinit" else 1.0)
        self.branch = nn.Sequential(branch)

    def forward(self, x: Tensor) -> Tensor:
        """(N, units) -> (N, units)."""
        return x + self.branch(x)


def norm_and_activation(
    units: int, kind: BlockName, *, norm: Norm, activation: LayerFactory, number: str = ""
) -> OrderedDict[str, nn.Module]:
    """What stands before a Linear, by name. With ``fixup`` a Shift before the activation and one after it."""
    layers: OrderedDict[str, nn.Module] = OrderedDict({f"norm{number}": norm(units)})
    if kind == "fixup":
        layers[f"activation_shift{number}"] = Shift()
    layers[f"activation{number}"] = activation()
    if kind == "fixup":
        layers[f"linear_shift{number}"] = Shift()
    return layers


def residual_layers(
    features: int,
    units: Sequence[int],
    kind: BlockName,
    *,
    norm: Norm,
    activation: LayerFactory,
    block_dropout: float,
    dropout: float,
) -> nn.Sequential:
    """A Linear, a ResidualBlock for each of ``units``, norm, activation, dropout: (N, features) -> (N, U).

    Each of ``units`` is U. ``dropout`` is that after the last activation.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(linear=nn.Linear(features, units[0]))
    layers["blocks"] = nn.Sequential(
        *(
            ResidualBlock(width, kind, norm=norm, activation=activation, dropout=block_dropout)
            for width in units
        )
    )
    layers |= norm_and_activation(units[0], kind, norm=norm, activation=activation)
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    return nn.Sequential(layers)


@torch.no_grad()
def apply_fixup(blocks: Sequence[ResidualBlock], head: nn.Linear) -> None:
    """Changes first weights as Zhang et al. 2019 do, rules 1 and 2, for L blocks of m = 2 Linears.

    ``head`` and the last Linear of each branch become 0. The first Linear of each branch is multiplied by
    L^(-1 / (2m - 2)): its weights, and its bias, which their layers do not have.
    """
    for block in blocks:
        for parameter in block.branch.get_submodule("linear1").parameters():
            parameter.mul_(len(blocks) ** -0.5)
    for linear in (head, *(block.branch.get_submodule("linear2") for block in blocks)):
        for parameter in linear.parameters():
            parameter.zero_()
