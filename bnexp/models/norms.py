"""Batch normalisation written out by hand (class BatchNorm), and every norm by its name (function make).

norm_variants.py has what the papers on batch norm change in it: ghost batches, noise after it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from bnexp.compute.processes import SumOverProcesses
from bnexp.errors import bad_choice, bad_value
from bnexp.models.norm_variants import GhostBatchNorm, GroupImages, MovingNoise

NormName = Literal["none", "batch", "batch_manual", "layer", "group", "instance", "batch_noise"]
Norm = Callable[[int], nn.Module]  # norm(channels) builds a layer


class BatchNorm(nn.Module):
    """Batch normalisation, line by line (Ioffe & Szegedy 2015, Algorithm 1).

    Each channel has m values in a batch. For vectors (N, C) m = N, for maps (N, C, H, W) m = N·H·W.
    In training mode, for each channel:

        mean  = 1/m · sum(x)                     mean of the batch
        var   = 1/m · sum((x - mean)²)           biased variance of the batch: divided by m, not m - 1
        x_hat = (x - mean) / sqrt(var + eps)     has mean 0 and variance 1; eps avoids a division by 0
        y     = weight · x_hat + bias            learned scale and shift: gamma and beta in the paper

    mean and var depend on x, so the gradient of y also flows through them. Autograd does that here.

    After training, the output for an image must not depend on the other images in its batch. In evaluation
    mode the formulas therefore use ``running_mean`` and ``running_var`` in place of mean and var. Training
    updates them at each step, with momentum as PyTorch defines it:

        running_mean = (1 - momentum) · running_mean + momentum · mean
        running_var  = (1 - momentum) · running_var  + momentum · var · m / (m - 1)

    The factor m / (m - 1) makes the variance unbiased (Algorithm 2, step 10): ``running_var`` estimates the
    variance of the data, not that of one batch. The paper averages over batches at the end of training; the
    running average replaces that (section 3.1). Running statistics are buffers: they are part of the state
    dict and move with the module, but they are no parameters and get no gradient.

    The results equal those of ``nn.BatchNorm1d`` and ``nn.BatchNorm2d`` up to rounding. The state dict has
    the same names and shapes.

    If several processes train one network, each has a part of every batch. With ``synchronized`` mean and
    var are those of the whole batch, on any device. Otherwise each process takes them from its own part.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, *, synchronized: bool = False
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.synchronized = synchronized
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, input: Tensor) -> Tensor:
        """(N, C) or (N, C, H, W) -> the same shape and dtype.

        Raises ValueError for another number of dimensions or channels. In training mode it also does so for
        fewer than two values per channel: the variance of one value is 0, and so is its x_hat.
        """
        values = self._values_per_channel(input)
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        dims = [d for d in range(x.dim()) if d != 1]  # all but the channels
        per_channel = (1, -1) + (1,) * (x.dim() - 2)  # views (C,) as (1, C) or (1, C, 1, 1), to broadcast

        if self.training:
            mean, _ = self._average(x, dims, values)  # (C,)
            centred = x - mean.view(per_channel)
            var, m = self._average(centred.square(), dims, values)  # (C,)
            self._update_running_statistics(mean.detach(), var.detach(), m)
        else:
            centred = x - self.running_mean.view(per_channel)
            var = self.running_var

        # y = weight · centred / sqrt(var + eps) + bias. The two factors of each channel are multiplied first.
        # One fused pass then computes y and never stores x_hat, which makes a step a third faster.
        scale = self.weight * torch.rsqrt(var + self.eps)  # (C,)
        y = torch.addcmul(self.bias.view(per_channel), centred, scale.view(per_channel))
        return y.to(input.dtype)

    def _average(self, x: Tensor, dims: list[int], values: int | Tensor) -> tuple[Tensor, int | Tensor]:
        """The mean of each channel (C,), and m, the number of values it was taken over."""
        if not self.synchronized:
            return x.mean(dims), values
        count = x.new_full((1,), x.numel() // self.num_features)
        total = SumOverProcesses.apply(torch.cat([x.sum(dims), count]))  # (C + 1,)
        return total[:-1] / total[-1], total[-1].detach()

    def _update_running_statistics(self, mean: Tensor, var: Tensor, m: int | Tensor) -> None:
        """Moves the running statistics towards those of the batch, (C,) each, which carry no gradient."""
        unbiased = var * (m / (m - 1))
        self.running_mean.mul_(1 - self.momentum).add_(mean, alpha=self.momentum)
        self.running_var.mul_(1 - self.momentum).add_(unbiased, alpha=self.momentum)
        self.num_batches_tracked.add_(1)

    def _values_per_channel(self, input: Tensor) -> int:
        """m in this process. Raises ValueError as ``forward`` says."""
        if input.dim() not in (2, 4):
            raise ValueError(f"expected 2D or 4D input (got {input.dim()}D input)")
        if input.shape[1] != self.num_features:  # an input of one channel would broadcast without an error
            raise ValueError(f"expected {self.num_features} channels (got input size {input.shape})")
        values = math.prod(input.shape) // self.num_features
        if self.training and values < 2 and not self.synchronized:
            raise ValueError(
                f"Expected more than 1 value per channel when training, got input size {input.shape}"
            )
        return values

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"

    def synchronized_copy(self) -> BatchNorm:
        """The same layer with ``synchronized`` set. It shares the parameters and buffers of this one."""
        copy = BatchNorm(self.num_features, self.eps, self.momentum, synchronized=True)
        copy.weight, copy.bias = self.weight, self.bias
        for name, buffer in self.named_buffers(recurse=False):
            copy.register_buffer(name, buffer)
        return copy.train(self.training)


def make(
    name: NormName, groups: int, images: GroupImages | None = None, *, spatial: bool, key: str = "model"
) -> Norm:
    """``norm(channels)`` by name, for maps (N, C, H, W) if ``spatial``, else for vectors (N, C).

    On maps ``layer`` normalises each image over its channels and pixels, with one scale and one shift per
    channel (group norm with one group: Wu & He 2018, section 3). No norm draws a random number when it is
    built, so the layers around it get the same first weights with every norm.

    With ``images`` the norm ``batch`` takes its statistics over groups of so many images (GhostBatchNorm).
    ``batch_noise`` is torch's batch norm with MovingNoise behind it.

    Raises UserError, naming ``{key}.norm``, ``{key}.norm_groups`` or ``{key}.norm_images``, for an unknown
    name, for ``instance`` on vectors, and for ``images`` with another norm than ``batch``. ``norm(channels)``
    raises it if ``groups`` does not divide the channels.
    """
    if images is not None and name != "batch":
        raise bad_value(f"{key}.norm_images", images, f"needs {key}.norm=batch, not {name}")
    if name == "instance" and not spatial:
        reason = "needs height and width, not a vector; use it where each norm follows a convolution"
        raise bad_value(f"{key}.norm", name, reason)

    def group_norm(channels: int) -> nn.Module:
        if channels % groups:
            rule = f"must divide the {channels} channels of a layer with norm=group"
            raise bad_value(f"{key}.norm_groups", groups, rule)
        return nn.GroupNorm(groups, channels)

    torch_batch_norm = nn.BatchNorm2d if spatial else nn.BatchNorm1d
    norms: dict[str, Norm] = {
        "none": lambda channels: nn.Identity(),
        "batch": torch_batch_norm if images is None else lambda channels: GhostBatchNorm(channels, images),
        "batch_manual": BatchNorm,
        "layer": (lambda channels: nn.GroupNorm(1, channels)) if spatial else nn.LayerNorm,
        "group": group_norm,
        "instance": lambda channels: nn.InstanceNorm2d(channels, affine=True),
        "batch_noise": lambda channels: nn.Sequential(
            OrderedDict(batch=torch_batch_norm(channels), noise=MovingNoise(channels))
        ),
    }
    if name not in norms:
        raise bad_choice(f"{key}.norm", name, get_args(NormName))
    return norms[name]


def has_manual_batch_norm(network: nn.Module) -> bool:
    """Whether ``network`` contains, or is, a BatchNorm of this file."""
    return any(isinstance(module, BatchNorm) for module in network.modules())


def synchronize_batch_norms(network: nn.Module) -> nn.Module:
    """``network`` with each BatchNorm of this file replaced by its ``synchronized_copy``.

    The network is changed in place and returned. If the network itself is a BatchNorm, its copy is returned.
    Parameters and buffers stay the same objects under the same names, so an optimizer stays valid. torch's
    own batch norms stay as they are: nn.SyncBatchNorm.convert_sync_batchnorm does the same for those.
    """
    copies = {
        module: module.synchronized_copy() for module in network.modules() if isinstance(module, BatchNorm)
    }
    if isinstance(network, BatchNorm):
        return copies[network]
    # A layer that is used in several places is listed under each of its names.
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if isinstance(module, BatchNorm):
            network.set_submodule(name, copies[module])
    return network
