"""Precise statistics of batch norm layers: those of a population of images, for the weights as they are.

Running statistics are an average over the steps of training. They still hold a share of the statistics of
earlier weights, and early in training even of those at the start. Precise statistics come from batches that
pass through the network while its weights stay the same (Wu & Johnson 2021, arXiv 2105.07576, section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnexp.data import Split
from bnexp.errors import UserError
from bnexp.models.norms import BatchNorm
from bnexp.seeding import derive

BatchNormLayer = _BatchNorm | BatchNorm


@dataclass(frozen=True, eq=False)
class ChannelStatistics:
    """Mean and biased variance of the input of a batch norm layer: float64 (C,) each."""

    mean: Tensor
    variance: Tensor


class _Moments:
    """Sums over the values of each channel, in float64, from which mean and variance follow."""

    def __init__(self) -> None:
        self.count = 0
        self.mean_sum: Tensor | float = 0.0
        self.square_sum: Tensor | float = 0.0

    def add(self, values: Tensor) -> None:
        """Adds a batch (N, C) or (N, C, ...), weighted by its number of values per channel."""
        if values.device.type == "mps":  # has no float64
            values = values.cpu()
        channels = values.detach().double().transpose(0, 1).flatten(1)  # (C, m)
        count, mean = channels.shape[1], channels.mean(1)
        variance = (channels - mean[:, None]).square().mean(1)
        self.count += count
        self.mean_sum = self.mean_sum + count * mean
        self.square_sum = self.square_sum + count * (variance + mean.square())

    def statistics(self) -> ChannelStatistics:
        mean = torch.as_tensor(self.mean_sum / self.count)
        # Rounding can leave a channel of equal values with a variance just below 0.
        variance = (self.square_sum / self.count - mean.square()).clamp(min=0)
        return ChannelStatistics(mean, variance)


def batch_norms(network: nn.Module) -> dict[str, BatchNormLayer]:
    """The batch norm layers of ``network`` that have running statistics, each once, by name.

    Those of torch (1d, 2d, 3d, synchronised) and ``norms.BatchNorm``.
    """
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, BatchNormLayer) and module.running_mean is not None
    }


def training_batches(train: Split, batch_size: int, count: int, seed: int) -> Iterator[Tensor]:
    """The images (B, C, S, S) of ``count`` batches as training gives them, augmentation included.

    Order and augmentation follow from the seed, and are those of no epoch of training.
    """
    epoch = train.epoch(batch_size, derive(seed, "population statistics"), 0)
    return (batch.tensors()[0] for batch in islice(epoch, count))


@contextmanager
def batch_statistics_mode(network: nn.Module) -> Iterator[None]:
    """Within the block batch norm layers normalise by their batch; all other layers are in eval mode.

    Running statistics and modes are afterwards as before.
    """
    norms = batch_norms(network)
    modes = {module: module.training for module in network.modules()}
    try:
        with _restored_buffers(norms.values()):
            network.eval()
            for norm in norms.values():
                norm.training = True  # not train(): a frozen layer may override it
            yield
    finally:
        for module, is_training in modes.items():
            module.training = is_training


def population_statistics(network: nn.Module, batches: Iterable[Tensor]) -> dict[str, ChannelStatistics]:
    """The statistics of the input of each batch norm layer over all ``batches`` of images (B, C, S, S).

    Batch k gives a channel the mean mu_k and the biased variance var_k. Over K batches of one size

        mean     = mean over k of mu_k
        variance = mean over k of (var_k + mu_k²) - mean²

    (Wu & Johnson 2021, section 3). A smaller batch weighs by its number of values. Each batch norm layer
    normalises by the statistics of its own batch. Dropout is off, as in the network that is evaluated. A
    layer that no batch reaches is left out.

    Weights, running statistics and modes are afterwards as before. Raises UserError where a batch gives a
    channel a single value: it has no variance.
    """
    with batch_statistics_mode(network):
        return input_statistics(network, batches)


@torch.no_grad()
def input_statistics(network: nn.Module, batches: Iterable[Tensor]) -> dict[str, ChannelStatistics]:
    """The same statistics with the network in the mode in which it stands."""
    norms = batch_norms(network)
    moments = {name: _Moments() for name in norms}
    hooks = [
        norm.register_forward_pre_hook(_recorder(name, moments[name]), with_kwargs=True)
        for name, norm in norms.items()
    ]
    try:
        for images in batches:
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: sums.statistics() for name, sums in moments.items() if sums.count}


@contextmanager
def precise_statistics(network: nn.Module, statistics: Mapping[str, ChannelStatistics]) -> Iterator[None]:
    """Within the block the named layers have ``statistics`` as running statistics; afterwards their own."""
    norms = batch_norms(network)
    with torch.no_grad(), _restored_buffers(norms[name] for name in statistics):
        for name, channels in statistics.items():
            norms[name].get_buffer("running_mean").copy_(channels.mean)
            norms[name].get_buffer("running_var").copy_(channels.variance)
        yield


@dataclass(frozen=True)
class StatisticsShift:
    """How far the running statistics of a layer are from others of its input.

    - ``mean``: the greatest |running mean - mean| / sqrt(variance + eps) of a channel, in standard deviations
    - ``variance``: the greatest ratio of running variance + eps and variance + eps, the larger over the
      smaller; the layer divides by the square roots of these sums
    - ``mean_variance``: the mean of that ratio over the channels
    """

    mean: float
    variance: float
    mean_variance: float


def statistics_shift(norm: BatchNormLayer, statistics: ChannelStatistics) -> StatisticsShift:
    """The shift of a batch norm layer's running statistics against ``statistics``."""
    running_mean = norm.get_buffer("running_mean").cpu().double()
    running = norm.get_buffer("running_var").cpu().double() + norm.eps
    mean, variance = statistics.mean.cpu(), statistics.variance.cpu() + norm.eps
    distance = (running_mean - mean).abs() / variance.sqrt()
    ratio = torch.maximum(running / variance, variance / running)
    return StatisticsShift(float(distance.max()), float(ratio.max()), float(ratio.mean()))


def _recorder(name: str, moments: _Moments) -> Callable[[nn.Module, Any, Any], None]:
    """A hook before a layer's forward that adds its input to ``moments``."""

    def record(module: nn.Module, inputs: tuple[Tensor, ...], keywords: dict[str, Tensor]) -> None:
        values = inputs[0] if inputs else keywords["input"]
        if values.numel() <= values.shape[1]:
            raise UserError(
                f"{name or 'the network'}: a batch gives each channel of this batch norm layer"
                " a single value, which has no variance; a batch needs two images"
            )
        moments.add(values)

    return record


@contextmanager
def _restored_buffers(norms: Iterable[nn.Module]) -> Iterator[None]:
    """After the block, the buffers of these layers have the values that they had before it."""
    buffers = [buffer for norm in norms for buffer in norm.buffers(recurse=False)]
    copies = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, copy in zip(buffers, copies, strict=True):
                buffer.copy_(copy)
