"""Densely connected networks (Huang et al. 2017)."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

import torch
from torch import Tensor, nn

from bnexp.config.validation import Count
from bnexp.errors import bad_value
from bnexp.models import norms
from bnexp.models.blocks import (
    ACTIVATIONS,
    ActivationName,
    GlobalAverage,
    InitName,
    LayerFactory,
    Network,
    Stem,
    StemName,
)
from bnexp.models.norm_variants import GroupImages
from bnexp.models.norms import Norm, NormName


class Concatenate(nn.Module):
    """Puts the channels of the second map behind those of the first."""

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """(N, A, S, S) and (N, B, S, S) -> (N, A + B, S, S)."""
        return torch.cat([first, second], dim=1)


class DenseBlock(nn.Module):
    """Layers of norm-activation-conv3x3. Each takes the block's input and all earlier outputs."""

    def __init__(
        self, in_channels: int, layers: int, growth: int, *, norm: Norm, activation: LayerFactory, bias: bool
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _norm_activation_conv(
                in_channels + number * growth, growth, 3, norm=norm, activation=activation, bias=bias
            )
            for number in range(layers)
        )
        self.concatenate = Concatenate()

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, S, S) -> (N, in + layers · growth, S, S); the first ``in`` channels are the input."""
        for layer in self.layers:
            x = self.concatenate(x, layer(x))
        return x


def transition(
    in_channels: int, channels: int, *, norm: Norm, activation: LayerFactory, bias: bool
) -> nn.Sequential:
    """norm-activation-conv1x1, then 2x2 average pooling: (N, in, S, S) -> (N, channels, S // 2, S // 2)."""
    layer = _norm_activation_conv(in_channels, channels, 1, norm=norm, activation=activation, bias=bias)
    layer.add_module("pool", nn.AvgPool2d(2))
    return layer


def _norm_activation_conv(
    in_channels: int, channels: int, kernel_size: int, *, norm: Norm, activation: LayerFactory, bias: bool
) -> nn.Sequential:
    """(N, in, S, S) -> (N, channels, S, S), for an odd ``kernel_size``."""
    conv = nn.Conv2d(in_channels, channels, kernel_size, padding=kernel_size // 2, bias=bias)
    return nn.Sequential(OrderedDict(norm=norm(in_channels), activation=activation(), conv=conv))


class DenseNet(Network):
    """A stem, dense blocks with transitions between them, norm-activation, the global average, a Linear.

    A transition halves height, width and channels. ``bias`` says whether the convolutions have biases, with
    a norm and without. A stem without a norm always has a bias. Raises UserError if ``blocks`` is empty.
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
        blocks: tuple[Count, ...],
        growth: Count,
        stem_width: Count,
        stem: StemName,
        stem_norm: bool,
        stem_padding: bool,
        activation: ActivationName,
        bias: bool,
        init: InitName,
    ) -> None:
        super().__init__(init)
        if not blocks:
            raise bad_value("model.blocks", list(blocks), "must list at least one block")
        make_norm = norms.make(norm, norm_groups, norm_images, spatial=True)
        make_activation = ACTIVATIONS[activation]
        self.stem = Stem(
            in_channels,
            stem_width,
            stem,
            padding=stem_padding,
            norm=make_norm if stem_norm else None,
            activation=make_activation,
            bias=bias,
        )
        make_block = partial(DenseBlock, norm=make_norm, activation=make_activation, bias=bias)
        make_transition = partial(transition, norm=make_norm, activation=make_activation, bias=bias)
        channels = stem_width
        body: OrderedDict[str, nn.Module] = OrderedDict()
        for number, layers in enumerate(blocks, start=1):
            if number > 1:
                body[f"transition{number - 1}"] = make_transition(channels, channels // 2)
                channels //= 2
            body[f"block{number}"] = make_block(channels, layers, growth)
            channels += layers * growth
        self.body = nn.Sequential(body)
        self.norm = make_norm(channels)
        self.activation = make_activation()
        self.pool = GlobalAverage()
        self.head = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, S, S) -> logits (N, K)."""
        maps = self.activation(self.norm(self.body(self.stem(images))))
        return self.head(self.pool(maps))
