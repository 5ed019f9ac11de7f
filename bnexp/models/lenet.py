"""LeNet-5, after LeCun et al. 1998."""

from __future__ import annotations

from torch import Tensor, nn

from bnexp.config.validation import Count, Probability
from bnexp.errors import UserError
from bnexp.models import norms
from bnexp.models.blocks import (
    ACTIVATIONS,
    POOLS,
    ActivationName,
    InitName,
    Network,
    PoolName,
    conv_layer,
    linear_layer,
)
from bnexp.models.norms import NormName

SMALLEST = 16  # pixels: 16 -> 12 -> 6 -> 2 -> 1


class LeNet(Network):
    """Two 5x5 convolutions with norm, activation, pool; Linear-norm-activation-dropout twice; a last Linear.

    The order of its modern form; in the paper the pool comes before the activation. At 28 pixels the maps
    are 28 -> 24 -> 12 -> 8 -> 4. Raises UserError for images below 16 pixels and for norm=instance, which
    the fully connected layers can't have.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: int,
        num_classes: int,
        *,
        norm: NormName,
        norm_groups: Count,
        widths: tuple[Count, Count],
        hidden: tuple[Count, ...],
        activation: ActivationName,
        pool: PoolName,
        dropout: Probability,
        start: InitName,
    ) -> None:
        super().__init__(start)
        if image_size < SMALLEST:
            small = f"two 5x5 convolutions with pooling need {SMALLEST} x {SMALLEST} pixels or more"
            raise UserError(
                f"model: {small}, not {image_size} x {image_size}; dataset.resize=28 enlarges them"
            )
        map_norm = norms.make(norm, norm_groups, spatial=True)
        vector_norm = norms.make(norm, norm_groups, spatial=False)
        act = ACTIVATIONS[activation]
        self.layers = nn.Sequential(
            *(
                conv_layer(
                    before, width, kernel_size=5, padding=0, norm=map_norm, activation=act, pool=POOLS[pool]
                )
                for before, width in zip((in_channels, widths[0]), widths, strict=True)
            )
        )
        size = ((image_size - 4) // 2 - 4) // 2
        features = [widths[1] * size * size, *hidden]
        self.hidden = nn.Sequential(
            *(
                linear_layer(before, units, norm=vector_norm, activation=act, dropout=dropout)
                for before, units in zip(features[:-1], hidden, strict=True)
            )
        )
        self.head = nn.Linear(features[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, S, S) -> logits (N, K)."""
        return self.head(self.hidden(self.layers(images).flatten(1)))
