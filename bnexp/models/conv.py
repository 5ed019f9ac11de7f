"""A small convolutional network."""

from __future__ import annotations

from torch import Tensor, nn

from bnexp.config.validation import Count, CountOrZero, Probability
from bnexp.errors import bad_value
from bnexp.models import norms
from bnexp.models.blocks import ACTIVATIONS, POOLS, ActivationName, InitName, Network, PoolName, conv_layer
from bnexp.models.norms import NormName


class ConvNet(Network):
    """Convolution-norm-activation-pool for each of ``widths``, then dropout and a Linear over all features.

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
        widths: tuple[Count, ...],
        kernel_size: Count | tuple[Count, ...],
        padding: CountOrZero | tuple[CountOrZero, ...],
        activation: ActivationName,
        pool: PoolName,
        dropout: Probability,
        init: InitName,
    ) -> None:
        super().__init__(init)
        make_norm = norms.make(norm, norm_groups, spatial=True)
        kernel_sizes = _value_per_conv(kernel_size, len(widths), "model.kernel_size")
        paddings = _value_per_conv(padding, len(widths), "model.padding")
        channels, size = in_channels, image_size
        layers = []
        for width, kernel, pad in zip(widths, kernel_sizes, paddings, strict=True):
            layer = conv_layer(
                channels,
                width,
                kernel_size=kernel,
                padding=pad,
                norm=make_norm,
                activation=ACTIVATIONS[activation],
                pool=POOLS[pool],
            )
            layers.append(layer)
            pooled = (size + 2 * pad - kernel + 1) // 2
            if pooled < 1:
                layer_input = f"whose input is {size} x {size} pixels"
                reason = f"too large for convolution {len(layers)} and its pool, {layer_input}"
                advice = "use smaller kernels, more model.padding, fewer model.widths, or dataset.resize"
                raise bad_value("model.kernel_size", kernel_size, f"{reason}; {advice}")
            channels, size = width, pooled
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
