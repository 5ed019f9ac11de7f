"""Normalisation by name, and batch normalisation written out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from bnexp.compute.processes import SumOverProcesses
from bnexp.errors import bad_choice, bad_value

NormName = Literal["none", "batch", "batch_manual", "layer", "group", "instance"]
Norm = Callable[[int], nn.Module]


def make(name: NormName, groups: int, *, spatial: bool, key: str = "model") -> Norm:
    """``norm(channels)`` by name, for maps (N, C, H, W) if ``spatial``, else for vectors (N, C).

    ``layer`` on maps normalises each image over its channels and pixels, with a scale and a shift a
    channel (group norm with one group: Wu & He 2018, section 3). No norm draws a random number when
    it is built, so the layers around it start alike whichever is chosen.

    Raises UserError, naming ``{key}.norm`` or ``{key}.norm_groups``, for a name it doesn't know, for
    ``instance`` on vectors, and, once called, for groups that don't divide the channels.
    """
    if name == "instance" and not spatial:
        needs = "needs height and width, not a vector: it fits networks whose norms all follow convolutions"
        raise bad_value(f"{key}.norm", name, needs)

    def group_norm(channels: int) -> nn.Module:
        if channels % groups:
            must = f"must divide the {channels} channels of a layer with norm=group"
            raise bad_value(f"{key}.norm_groups", groups, must)
        return nn.GroupNorm(groups, channels)

    norms: dict[str, Norm] = {
        "none": lambda channels: nn.Identity(),
        "batch": nn.BatchNorm2d if spatial else nn.BatchNorm1d,
        "batch_manual": BatchNorm,
        "layer": (lambda channels: nn.GroupNorm(1, channels)) if spatial else nn.LayerNorm,
        "group": group_norm,
        "instance": lambda channels: nn.InstanceNorm2d(channels, affine=True),
    }
    if name not in norms:
        raise bad_choice(f"{key}.norm", name, get_args(NormName))
    return norms[name]


class BatchNorm(nn.Module):
    """Batch normalisation, line by line: Ioffe & Szegedy 2015, Algorithm 1.

    For each channel, over the m values that it has in the batch (m = N for vectors (N, C), and
    m = N·H·W for maps (N, C, H, W)):

        mean  = 1/m · sum(x)                     the batch's mean
        var   = 1/m · sum((x - mean)²)           its variance, the biased one: divided by m
        x_hat = (x - mean) / sqrt(var + eps)     now of mean 0 and variance 1; eps keeps the root off 0
        y     = weight · x_hat + bias            scale and shift, learned: gamma and beta in the paper

    The gradient runs through mean and var as well, since both depend on x: that is what makes it
    more than a rescaling, and autograd does it by itself here.

    An image's output must not depend on what else is in its batch once training is over, so in
    evaluation mode mean and var are replaced by ``running_mean`` and ``running_var``, which training
    tracks in PyTorch's convention of momentum:

        running = (1 - momentum) · running + momentum · batch

    ``running_var`` tracks the unbiased variance, var · m/(m - 1) (the end of Algorithm 2), since it
    stands for the variance of the data and not of one batch. They are buffers: in the state dict and
    moved with the module, but no parameters, and no gradient reaches them.

    Equal to ``nn.BatchNorm1d`` and ``nn.BatchNorm2d`` to rounding, and its state dict is theirs.

    Where several processes train one network on a share of each batch, ``synchronised`` takes mean and
    var over all the shares, on any device; otherwise each process normalises by its own share alone.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.synchronised = False
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, input: Tensor) -> Tensor:
        """(N, C) or (N, C, H, W) -> the same shape and dtype.

        Raises ValueError for another number of dimensions or channels and, in training mode, for fewer
        than two values a channel: one value's variance is 0, and its x_hat 0 whatever it was.
        """
        values = self._values_per_channel(input)
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        dims = [d for d in range(x.dim()) if d != 1]  # all but the channels
        per_channel = (1, -1) + (1,) * (x.dim() - 2)  # a vector (C,) as (1, C, 1, 1), to broadcast

        if self.training:
            mean, _ = self._average(x, dims, values)  # (C,)
            centred = x - mean.view(per_channel)
            var, m = self._average(centred.square(), dims, values)  # (C,)
            self._track(mean.detach(), var.detach(), m)
        else:
            centred = x - self.running_mean.view(per_channel)
            var = self.running_var

        # y = weight · centred / sqrt(var + eps) + bias. The factors of a channel are multiplied first and
        # the rest is one fused pass: x_hat is never stored, which makes a step a third faster.
        scale = self.weight * torch.rsqrt(var + self.eps)  # (C,)
        y = torch.addcmul(self.bias.view(per_channel), centred, scale.view(per_channel))
        return y.to(input.dtype)

    def _average(self, x: Tensor, dims: list[int], values: int | Tensor) -> tuple[Tensor, int | Tensor]:
        """The mean of each channel (C,), and over how many values it was taken."""
        if not self.synchronised:
            return x.mean(dims), values
        count = x.new_full((1,), x.numel() // self.num_features)
        total = SumOverProcesses.apply(torch.cat([x.sum(dims), count]))  # (C + 1,)
        return total[:-1] / total[-1], total[-1].detach()

    def _track(self, mean: Tensor, var: Tensor, values: int | Tensor) -> None:
        """Moves the running statistics towards the batch's; without gradients."""
        unbiased = var * (values / (values - 1))
        self.running_mean.mul_(1 - self.momentum).add_(mean, alpha=self.momentum)
        self.running_var.mul_(1 - self.momentum).add_(unbiased, alpha=self.momentum)
        self.num_batches_tracked.add_(1)

    def _values_per_channel(self, input: Tensor) -> int:
        if input.dim() not in (2, 4):
            raise ValueError(f"expected 2D or 4D input (got {input.dim()}D input)")
        if input.shape[1] != self.num_features:  # broadcasting would let one channel pass as many
            raise ValueError(f"expected {self.num_features} channels (got input size {input.shape})")
        values = math.prod(input.shape) // self.num_features
        if self.training and values < 2 and not self.synchronised:
            raise ValueError(
                f"Expected more than 1 value per channel when training, got input size {input.shape}"
            )
        return values

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"
