"""The multi-layer perceptron."""

from __future__ import annotations

from torch import Tensor, nn

from bnexp.config.validation import Count, Probability
from bnexp.models import norms
from bnexp.models.blocks import ACTIVATIONS, ActivationName, InitName, Network, linear_layer
from bnexp.models.norms import NormName


class MLP(Network):
    """All pixels as one vector, Linear-norm-activation-dropout for each of ``hidden``, and a last Linear.

    Raises UserError for norm=instance, which does not fit vectors.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: int,
        num_classes: int,
        *,
        norm: NormName,
        norm_groups: Count,
        hidden: tuple[Count, ...],
        activation: ActivationName,
        dropout: Probability,
        init: InitName,
    ) -> None:
        super().__init__(init)
        make_norm = norms.make(norm, norm_groups, spatial=False)
        sizes = [in_channels * image_size * image_size, *hidden]
        self.hidden = nn.Sequential(
            *(
                linear_layer(
                    features, units, norm=make_norm, activation=ACTIVATIONS[activation], dropout=dropout
                )
                for features, units in zip(sizes[:-1], hidden, strict=True)
            )
        )
        self.head = nn.Linear(sizes[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, S, S) -> logits (N, K)."""
        return self.head(self.hidden(images.flatten(1)))
