"""Layers that several networks share: activations and pools by name, conv and linear layers, the stem.

A block takes functions, ``norm(channels)``, ``activation()`` and ``pool()``, and never sees their names.
Without a norm its norm slot holds nn.Identity. The layers around the slot then have the same names with and
without a norm, and so the same first weights: these are drawn from a layer's name (initialization.py).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from bnexp.models.norms import Norm
from bnexp.models.pooling import MaxPool

ActivationName = Literal["relu", "sigmoid", "tanh", "gelu", "silu", "leaky_relu", "elu", "linear"]
PoolName = Literal["max", "avg"]
NormPosition = Literal["before", "after"]  # of the activation
StemName = Literal["small", "large"]
InitName = Literal["default", "kaiming", "lecun"]
LayerFactory = Callable[[], nn.Module]

# None works in place. In a block without a norm that would overwrite the input, which the shortcut needs.
ACTIVATIONS: dict[ActivationName, LayerFactory] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "linear": nn.Identity,
}
POOLS: dict[PoolName, LayerFactory] = {"max": MaxPool, "avg": lambda: nn.AvgPool2d(2)}


class Network(nn.Module):
    """Base of the networks of this package; ``init`` says how initialization.py draws their first weights."""

    def __init__(self, init: InitName) -> None:
        super().__init__()
        self.init = init

    def adjust_first_weights(self) -> None:
        """Called after each Linear and convolution has its first weights, for a network that changes some."""


def conv_layer(
    in_channels: int,
    channels: int,
    *,
    kernel_size: int,
    padding: int,
    norm: Norm,
    activation: LayerFactory,
    pool: LayerFactory | None,
    norm_position: NormPosition = "before",
) -> nn.Sequential:
    """Conv, norm, activation, pool: (N, in, S, S) -> (N, channels, T, T), T = (S + 2 pad - k + 1) // 2.

    Without a pool T = S + 2 pad - k + 1.
    """
    layer: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv2d(in_channels, channels, kernel_size, padding=padding),
        norm=norm(channels),
        activation=activation(),
    )
    if norm_position == "after":
        layer.move_to_end("norm")
    if pool:
        layer["pool"] = pool()
    return nn.Sequential(layer)


def linear_layer(
    features: int,
    units: int,
    *,
    norm: Norm,
    activation: LayerFactory,
    dropout: float,
    norm_position: NormPosition = "before",
) -> nn.Sequential:
    """Linear, norm, activation, and dropout if it is above 0: (N, features) -> (N, units)."""
    layer = OrderedDict(linear=nn.Linear(features, units), norm=norm(units), activation=activation())
    if norm_position == "after":
        layer.move_to_end("norm")
    if dropout:
        layer["dropout"] = nn.Dropout(dropout)
    return nn.Sequential(layer)


class Scale(nn.Module):
    """Multiplies its input by a learned number, which starts at ``start``; the shape stays."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((1,), start))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Shift(nn.Module):
    """Adds a learned number, which starts at 0, to its input; the shape stays."""

    def __init__(self) -> None:
        super().__init__()
        self.summand = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.summand


class GlobalAverage(nn.Module):
    """The mean of each channel over its pixels."""

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C)."""
        return maps.mean(dim=(2, 3))


class Stem(nn.Module):
    """The first layers of a residual or dense network: convolution, norm, activation, pool.

    ``small`` is a 3x3 convolution without a pool, for images of about 32 pixels. ``large`` is a 7x7
    convolution with stride 2 and 3x3 max-pooling with stride 2 (He et al. 2015, table 1). With ``norm=None``
    there is no activation either. The convolution then has a bias in any case, since no norm adds one.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kind: StemName,
        *,
        padding: bool,
        norm: Norm | None,
        activation: LayerFactory,
        bias: bool,
    ) -> None:
        super().__init__()
        kernel_size, stride = (7, 2) if kind == "large" else (3, 1)
        self.conv = nn.Conv2d(
            in_channels,
            channels,
            kernel_size,
            stride,
            padding=kernel_size // 2 if padding else 0,
            bias=bias or norm is None,
        )
        self.norm = norm(channels) if norm else nn.Identity()
        self.activation = activation() if norm else nn.Identity()
        self.pool = nn.MaxPool2d(3, 2, padding=int(padding)) if kind == "large" else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        """(N, in, S, S) -> (N, channels, T, T). With padding T = S for small and about S / 4 for large."""
        return self.pool(self.activation(self.norm(self.conv(images))))
