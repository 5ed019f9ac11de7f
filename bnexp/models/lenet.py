"""LeNet-5 (LeCun et al. 1998)."""

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
from bnexp.models.norm_variants import GroupImages
from bnexp.models.norms import NormName

SMALLEST_IMAGE = 16  # pixels a side: 16 -> 12 -> 6 -> 2 -> 1


class LeNet(Network):
    """Conv5x5-norm-activation-pool twice, Linear-norm-activation-dropout for each of ``hidden``, a Linear.

    This is the modern order. In the paper the pool comes before the activation. An image of 28 pixels gives
    maps of 28 -> 24 -> 12 -> 8 -> 4. Raises UserError for images below 16 pixels, and for norm=instance,
    which does not fit the fully connected layers.
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
        widths: tuple[Count, Count],
        hidden: tuple[Count, ...],
        activation: ActivationName,
        pool: PoolName,
        dropout: Probability,
        init: InitName,
    ) -> None:
        super().__init__(init)
        if image_size < SMALLEST_IMAGE:
            required = f"{SMALLEST_IMAGE} x {SMALLEST_IMAGE} pixels or more, not {image_size} x {image_size}"
            raise UserError(
                f"model: two 5x5 convolutions with pooling need {required};"
                " dataset.resize=28 enlarges the images"
            )
        make_map_norm = norms.make(norm, norm_groups, norm_images, spatial=True)
        make_vector_norm = norms.make(norm, norm_groups, norm_images, spatial=False)
        make_activation = ACTIVATIONS[activation]
        self.layers = nn.Sequential(
            *(
                conv_layer(
                    channels,
                    width,
                    kernel_size=5,
                    padding=0,
                    norm=make_map_norm,
                    activation=make_activation,
                    pool=POOLS[pool],
                )
                for channels, width in zip((in_channels, widths[0]), widths, strict=True)
            )
        )
        size = ((image_size - 4) // 2 - 4) // 2
        features = [widths[1] * size * size, *hidden]
        self.hidden = nn.Sequential(
            *(
                linear_layer(
                    inputs, units, norm=make_vector_norm, activation=make_activation, dropout=dropout
                )
                for inputs, units in zip(features[:-1], hidden, strict=True)
            )
        )
        self.head = nn.Linear(features[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, S, S) -> logits (N, K)."""
        return self.head(self.hidden(self.layers(images).flatten(1)))
