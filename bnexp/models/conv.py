"""A plain convolutional network."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from bnexp.config.validation import Count, CountOrZero, Probability
from bnexp.errors import bad_value
from bnexp.models import norms
from bnexp.models.blocks import (
    ACTIVATIONS,
    POOLS,
    ActivationName,
    InitName,
    Network,
    NormPosition,
    PoolName,
    conv_layer,
)
from bnexp.models.norm_variants import GroupImages
from bnexp.models.norms import NormName


class ConvNet(Network):
    """Convolution-norm-activation-pool for each of ``widths``, then dropout and a Linear over all features.

    The list ``widths`` is repeated ``depth`` times, with its kernel sizes and paddings. With
    ``norm_position=after`` the norm follows the activation.

    Raises UserError if ``kernel_size`` or ``padding`` is a list of another length than ``widths``, and if
    the image is too small for the convolutions and pools.
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
        widths: tuple[Count, ...],
        depth: Count = 1,
        kernel_size: Count | tuple[Count, ...],
        padding: CountOrZero | tuple[CountOrZero, ...],
        activation: ActivationName,
        pool: PoolName | Literal["none"],
        dropout: Probability,
        init: InitName,
    ) -> None:
        super().__init__(init)
        make_norm = norms.make(norm, norm_groups, norm_images, spatial=True)
        kernel_sizes = _value_per_conv(kernel_size, len(widths), "model.kernel_size")
        paddings = _value_per_conv(padding, len(widths), "model.padding")
        channels, size = in_channels, image_size
        layers = []
        for width, kernel, pad in list(zip(widths, kernel_sizes, paddings, strict=True)) * depth:
            layer = conv_layer(
                channels,
                width,
                kernel_size=kernel,
                padding=pad,
                norm=make_norm,
                activation=ACTIVATIONS[activation],
                pool=None if pool == "none" else POOLS[pool],
                norm_position=norm_position,
            )
            layers.append(layer)
            output_size = size + 2 * pad - kernel + 1
            if pool != "none":
                output_size //= 2
            if output_size < 1:
                layer_input = f"whose input is {size} x {size} pixels"
                and_pool = "" if pool == "none" else " and its pool"
                reason = f"too large for convolution {len(layers)}{and_pool}, {layer_input}"
                advice = "use smaller kernels, more model.padding, fewer layers, or dataset.resize"
                raise bad_value("model.kernel_size", kernel_size, f"{reason}; {advice}")
            channels, size = width, output_size
        self.layers = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.head = nn.Linear(channels * size * size, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, S, S) -> logits (N, K)."""
        return self.head(self.dropout(self.layers(images).flatten(1)))


def _value_per_conv(value: int | tuple[int, ...], count: int, key: str) -> tuple[int, ...]:
    """One value for each of ``count`` convolutions."""
    if isinstance(value, int):
        return (value,) * count
    if len(value) != count:
        raise bad_value(key, list(value), f"must be one number, or one for each of the {count} model.widths")
    return tuple(value)
