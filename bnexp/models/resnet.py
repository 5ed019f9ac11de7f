"""Residual networks: basic and bottleneck blocks (He et al. 2015), pre-activation blocks (He et al. 2016)."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import ClassVar, Literal

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


class BasicBlock(nn.Module):
    """conv3x3-norm-activation-conv3x3-norm, add the shortcut, activation (He et al. 2015, figure 5 left)."""

    expansion: ClassVar = 1

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        *,
        norm: Norm,
        activation: LayerFactory,
        bias: bool,
        shortcut_norm: bool,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=bias)
        self.norm1 = norm(channels)
        self.activation1 = activation()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=bias)
        self.norm2 = norm(channels)
        self.shortcut = _shortcut(in_channels, channels, stride, norm if shortcut_norm else None, bias)
        self.activation2 = activation()

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, S, S) -> (N, channels, T, T), T = S / stride, rounded up."""
        residual = self.activation1(self.norm1(self.conv1(x)))
        residual = self.norm2(self.conv2(residual))
        return self.activation2(residual + self.shortcut(x))


class BottleneckBlock(nn.Module):
    """conv1x1, conv3x3, conv1x1 to four times the channels, each with a norm (figure 5 right).

    The 3x3 convolution has the stride. In the paper the first 1x1 has it, and then ignores three of four
    pixels.
    """

    expansion: ClassVar = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        *,
        norm: Norm,
        activation: LayerFactory,
        bias: bool,
        shortcut_norm: bool,
    ) -> None:
        super().__init__()
        wide = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=bias)
        self.norm1 = norm(channels)
        self.activation1 = activation()
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=bias)
        self.norm2 = norm(channels)
        self.activation2 = activation()
        self.conv3 = nn.Conv2d(channels, wide, 1, bias=bias)
        self.norm3 = norm(wide)
        self.shortcut = _shortcut(in_channels, wide, stride, norm if shortcut_norm else None, bias)
        self.activation3 = activation()

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, S, S) -> (N, 4 channels, T, T), T = S / stride, rounded up."""
        residual = self.activation1(self.norm1(self.conv1(x)))
        residual = self.activation2(self.norm2(self.conv2(residual)))
        residual = self.norm3(self.conv3(residual))
        return self.activation3(residual + self.shortcut(x))


class PreactBlock(nn.Module):
    """norm-activation-conv3x3 twice, then the shortcut is added (He et al. 2016, figure 1b).

    The shortcut never has a norm, so ``shortcut_norm`` has no effect in this block. If the block changes the
    shape, the shortcut's 1x1 convolution takes the output of the first norm and activation, as in the
    authors' networks.
    """

    expansion: ClassVar = 1

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        *,
        norm: Norm,
        activation: LayerFactory,
        bias: bool,
        shortcut_norm: bool,
    ) -> None:
        super().__init__()
        self.norm1 = norm(in_channels)
        self.activation1 = activation()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=bias)
        self.norm2 = norm(channels)
        self.activation2 = activation()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=bias)
        self.shortcut = _shortcut(in_channels, channels, stride, None, bias)
        self.same_shape = isinstance(self.shortcut, nn.Identity)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, S, S) -> (N, channels, T, T), T = S / stride, rounded up."""
        active = self.activation1(self.norm1(x))
        residual = self.conv2(self.activation2(self.norm2(self.conv1(active))))
        return residual + self.shortcut(x if self.same_shape else active)


def _shortcut(in_channels: int, channels: int, stride: int, norm: Norm | None, bias: bool) -> nn.Module:
    """nn.Identity if the block keeps the shape, else a 1x1 convolution and the norm, if one is given.

    (N, in, S, S) -> (N, channels, T, T), T = S / stride, rounded up. A convolution without a norm has a bias.
    """
    if in_channels == channels and stride == 1:
        return nn.Identity()
    conv = nn.Conv2d(in_channels, channels, 1, stride, bias=bias or norm is None)
    return nn.Sequential(OrderedDict(conv=conv, norm=norm(channels) if norm else nn.Identity()))


BLOCKS: dict[str, type[BasicBlock] | type[BottleneckBlock] | type[PreactBlock]] = {
    "basic": BasicBlock,
    "bottleneck": BottleneckBlock,
    "preact": PreactBlock,
}


class ResNet(Network):
    """A stem, stages of residual blocks, the global average, and a Linear.

    The first block of each stage but the first halves height and width. ``bias`` says whether the
    convolutions have biases, with a norm and without. A stem or shortcut without a norm always has a bias.
    Raises UserError if ``depths`` and ``widths`` are not lists of the same length, at least 1.
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
        block: Literal["basic", "bottleneck", "preact"],
        depths: tuple[Count, ...],
        widths: tuple[Count, ...],
        stem: StemName,
        stem_norm: bool,
        stem_padding: bool,
        shortcut_norm: bool,
        activation: ActivationName,
        bias: bool,
        init: InitName,
    ) -> None:
        super().__init__(init)
        if not widths or len(depths) != len(widths):
            raise bad_value(
                "model.depths", list(depths), f"must list a number for each of model.widths={list(widths)}"
            )
        make_norm = norms.make(norm, norm_groups, norm_images, spatial=True)
        make_activation = ACTIVATIONS[activation]
        self.stem = Stem(
            in_channels,
            widths[0],
            stem,
            padding=stem_padding,
            norm=make_norm if stem_norm else None,
            activation=make_activation,
            bias=bias,
        )
        block_class = BLOCKS[block]
        make_block = partial(
            block_class, norm=make_norm, activation=make_activation, bias=bias, shortcut_norm=shortcut_norm
        )
        channels = widths[0]
        self.stages = nn.Sequential()
        for number, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            stage = nn.Sequential()
            for position in range(depth):
                stride = 2 if number > 0 and position == 0 else 1
                stage.append(make_block(channels, width, stride))
                channels = width * block_class.expansion
            self.stages.append(stage)
        # A pre-activation block ends with a sum, so one more norm and activation come before the average.
        last = nn.Sequential(OrderedDict(norm=make_norm(channels), activation=make_activation()))
        self.last = last if block == "preact" else nn.Identity()
        self.pool = GlobalAverage()
        self.head = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, S, S) -> logits (N, K)."""
        return self.head(self.pool(self.last(self.stages(self.stem(images)))))
