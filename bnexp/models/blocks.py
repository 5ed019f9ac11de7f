"""What the families share: activations and pools by name, plain layers, the stem.

A block is handed callables, ``norm(channels)``, ``activation()`` and ``pool()``, and never their names.
Its norm slot stays in place, as nn.Identity, where there is no norm: the names of the layers around it,
from which their start is drawn, are then the same with and without.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from bnexp.models.norms import Norm
from bnexp.models.pooling import MaxPool

ActivationName = Literal["relu", "sigmoid", "tanh", "gelu", "silu", "leaky_relu", "elu"]
PoolName = Literal["max", "avg"]
StemName = Literal["small", "large"]
InitName = Literal["default", "kaiming"]
Make = Callable[[], nn.Module]

# None of them in place: where there is no norm, that would overwrite what a shortcut still needs.
ACTIVATIONS: dict[ActivationName, Make] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
}
POOLS: dict[PoolName, Make] = {"max": MaxPool, "avg": lambda: nn.AvgPool2d(2)}


class Network(nn.Module):
    """A network of ours: its Linears and convolutions start from their names, as ``start`` says (init.py)."""

    def __init__(self, start: InitName) -> None:
        super().__init__()
        self.start = start


def conv_layer(
    in_channels: int,
    channels: int,
    *,
    kernel_size: int,
    padding: int,
    norm: Norm,
    activation: Make,
    pool: Make,
) -> nn.Sequential:
    """Conv, norm, activation, pool: (N, in, S, S) -> (N, channels, T, T), T = (S + 2 pad - k + 1) // 2."""
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(in_channels, channels, kernel_size, padding=padding),
            norm=norm(channels),
            activation=activation(),
            pool=pool(),
        )
    )


def linear_layer(features: int, units: int, *, norm: Norm, activation: Make, dropout: float) -> nn.Sequential:
    """Linear, norm, activation, dropout: (N, features) -> (N, units)."""
    layer = OrderedDict(linear=nn.Linear(features, units), norm=norm(units), activation=activation())
    if dropout:
        layer["dropout"] = nn.Dropout(dropout)
    return nn.Sequential(layer)


class GlobalAverage(nn.Module):
    """The mean of each channel's map."""

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C)."""
        return maps.mean(dim=(2, 3))


class Stem(nn.Module):
    """From an image to a residual or dense network's first maps.

    ``small`` is a 3x3 convolution, for images of some 32 pixels; ``large`` is 7x7 with stride 2, then 3x3
    max-pooling with stride 2 (He et al. 2015, table 1). Without ``norm`` there is no activation either, and
    the convolution keeps its bias: no shift follows that could stand in for it.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kind: StemName,
        *,
        padding: bool,
        norm: Norm | None,
        activation: Make,
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
        """(N, in, S, S) -> (N, channels, T, T), padded: T = S for small, about S / 4 for large."""
        return self.pool(self.activation(self.norm(self.conv(images))))
