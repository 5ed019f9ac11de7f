"""A small convolutional network."""

from __future__ import annotations

from torch import Tensor, nn

from bnexp.config.validation import Count, CountOrZero, Probability
from bnexp.errors import bad_value
from bnexp.models import norms
from bnexp.models.blocks import ACTIVATIONS, POOLS, ActivationName, InitName, Network, PoolName, conv_layer
from bnexp.models.norms import NormName


class ConvNet(Network):
    """Convolution-norm-activation-pool for each width, dropout, and a Linear over all that is left.

    Raises UserError where ``kernel_size`` or ``padding`` lists another number of convolutions than
    ``widths``, and where the image is too small for them.
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
        start: InitName,
    ) -> None:
        super().__init__(start)
        make_norm = norms.make(norm, norm_groups, spatial=True)
        kernel_sizes = _each(kernel_size, len(widths), "model.kernel_size")
        paddings = _each(padding, len(widths), "model.padding")
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
                left = f"leaves nothing of the {size} x {size} map that convolution {len(layers)} sees"
                mend = "use smaller kernels, more model.padding, fewer model.widths, or dataset.resize"
                raise bad_value("model.kernel_size", kernel_size, f"{left}; {mend}")
            channels, size = width, pooled
        self.layers = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.head = nn.Linear(channels * size * size, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, S, S) -> logits (N, K)."""
        return self.head(self.dropout(self.layers(images).flatten(1)))


def _each(value: int | tuple[int, ...], count: int, key: str) -> tuple[int, ...]:
    """One value for each of ``count`` convolutions."""
    if isinstance(value, int):
        return (value,) * count
    if len(value) != count:
        raise bad_value(key, list(value), f"must be one number, or one for each of the {count} model.widths")
    return tuple(value)
