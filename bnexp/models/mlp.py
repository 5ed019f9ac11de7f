"""The multi-layer perceptron."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from bnexp.config.validation import Count, Probability
from bnexp.errors import bad_value
from bnexp.models import norms
from bnexp.models.blocks import (
    ACTIVATIONS,
    ActivationName,
    InitName,
    Network,
    NormPosition,
    linear_layer,
)
from bnexp.models.norm_variants import GroupImages
from bnexp.models.norms import NormName
from bnexp.models.residual_mlp import ResidualBlock, apply_fixup, residual_layers

ResidualName = Literal["none", "plain", "skipinit", "fixup"]


class MLP(Network):
    """All pixels as one vector, Linear-norm-activation-dropout for each of ``hidden``, and a last Linear.

    The list ``hidden`` is repeated ``depth`` times. With ``norm_position=after`` the norm follows the
    activation. With ``dropout_layers=last`` there is dropout before the last Linear alone, behind every norm,
    as Li et al. 2019 recommend. With ``all`` the dropout of a layer stands before the next layer's norm.

    With ``residual`` a first Linear is followed by a ResidualBlock for each of ``hidden``, then norm,
    activation, dropout and the last Linear. A block's own dropout stands before its second Linear.

    Raises UserError for norm=instance, which does not fit vectors, and with ``residual`` for blocks of
    different sizes and for ``norm_position=after``.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: int,
        num_classes: int,
        *,
        norm: NormName,
        norm_groups: Count,
        norm_images: GroupImages | None = None,
        norm_position: NormPosition = "before",
        hidden: tuple[Count, ...],
        depth: Count = 1,
        residual: ResidualName = "none",
        activation: ActivationName,
        dropout: Probability,
        dropout_layers: Literal["all", "last"] = "all",
        init: InitName,
    ) -> None:
        super().__init__(init)
        self.residual = residual
        make_norm = norms.make(norm, norm_groups, norm_images, spatial=False)
        make_activation = ACTIVATIONS[activation]
        units = hidden * depth
        sizes = [in_channels * image_size * image_size, *units]
        inner_dropout = dropout if dropout_layers == "all" else 0.0
        if residual == "none":
            dropouts = [*[inner_dropout] * (len(units) - 1), dropout]
            self.hidden = nn.Sequential(
                *(
                    linear_layer(
                        *features,
                        norm=make_norm,
                        activation=make_activation,
                        dropout=rate,
                        norm_position=norm_position,
                    )
                    for features, rate in zip(pairwise(sizes), dropouts, strict=False)
                )
            )
        else:
            _check_residual(hidden, residual, norm_position)
            self.hidden = residual_layers(
                sizes[0],
                units,
                residual,
                norm=make_norm,
                activation=make_activation,
                block_dropout=inner_dropout,
                dropout=dropout,
            )
        self.head = nn.Linear(sizes[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, S, S) -> logits (N, K)."""
        return self.head(self.hidden(images.flatten(1)))

    def adjust_first_weights(self) -> None:
        if self.residual == "fixup":
            apply_fixup([module for module in self.modules() if isinstance(module, ResidualBlock)], self.head)


def _check_residual(hidden: tuple[int, ...], residual: ResidualName, norm_position: NormPosition) -> None:
    """Raises UserError for what residual blocks do not allow."""
    if len(set(hidden)) != 1:
        rule = f"must list equal numbers of units, at least one, for model.residual={residual}"
        raise bad_value("model.hidden", list(hidden), rule)
    if norm_position == "after":
        rule = f"must be before for model.residual={residual}, whose branches begin with a norm"
        raise bad_value("model.norm_position", norm_position, rule)
