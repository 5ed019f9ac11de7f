"""What papers change in batch norm to learn why it helps: statistics over fewer images, noise behind it."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bnexp.config.validation import Range

GroupImages = Annotated[int, Range(2)]  # images that share their statistics


class GhostBatchNorm(_BatchNorm):
    """Batch norm whose statistics are those of groups of ``images`` images within the batch.

    Hoffer et al. 2017 call the groups ghost batches. Luo et al. 2019 show that their noise regularises: it
    moves with 1 / images, while the gradient stays that of the whole batch. (Both recalled, not re-read.)

    In training mode the first ``images`` images are a group, the next ``images`` are the next one, and so on.
    Images that are left over are a smaller group. A single image that is left over joins the group before it.
    In each group and channel, with m values:

        y = weight · (x - mean) / sqrt(var + eps) + bias        mean and var of the group, var divided by m

    Each batch moves the running statistics once, towards the mean over its groups of mean and of
    var · m / (m - 1), each group weighted by its images. That variance is the data's on average, since each
    group's is unbiased. (Hoffer et al. move them once for each group.) In evaluation mode the layer is
    torch's batch norm, with the same names in the state dict.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, num_features: int, images: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(num_features, eps, momentum)
        self.images = images

    def forward(self, input: Tensor) -> Tensor:
        """(N, C) or (N, C, H, W) -> the same shape and dtype.

        Raises ValueError for another number of dimensions. In training mode it also does so for fewer than
        two values per channel.
        """
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        count = len(x)
        full = count // self.images
        if count % self.images == 1 and full:
            full -= 1
        boundary = full * self.images
        groups = [x[:boundary].unflatten(0, (full, self.images))] if full else []
        if boundary < count:
            groups.append(x[boundary:].unsqueeze(0))
        outputs, means, variances = zip(*map(self._normalise, groups), strict=True)
        self._update_running_statistics(sum(means) / count, sum(variances) / count)
        return torch.cat(outputs).to(input.dtype)

    def _normalise(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Groups of M images (G, M, C, ...) -> their output (G·M, C, ...), and two sums over all images (C,).

        They are the sums of the mean and of the unbiased variance of the group of each image.
        """
        group_count, images, channels = x.shape[:3]
        dims = [1, *range(3, x.dim())]  # all but the groups and the channels
        values = x.numel() // (group_count * channels)
        if values < 2:
            raise ValueError(
                f"Expected more than 1 value per channel when training, got input size {x.shape[1:]}"
            )
        mean = x.mean(dims, keepdim=True)
        centred = x - mean
        var = centred.square().mean(dims, keepdim=True)
        per_channel = (-1,) + (1,) * (x.dim() - 3)  # views (C,) as (C,) or (C, 1, 1), to broadcast
        scale = self.weight.view(per_channel) * torch.rsqrt(var + self.eps)
        output = torch.addcmul(self.bias.view(per_channel), centred, scale).flatten(0, 1)
        means, variances = (
            statistic.detach().view(group_count, channels).sum(0) for statistic in (mean, var)
        )
        return output, means * images, variances * (images * values / (values - 1))

    @torch.no_grad()
    def _update_running_statistics(self, mean: Tensor, var: Tensor) -> None:
        """Moves the running statistics towards those of the batch, (C,) each."""
        momentum = self.momentum or 0.0
        self.running_mean.mul_(1 - momentum).add_(mean, alpha=momentum)
        self.running_var.mul_(1 - momentum).add_(var, alpha=momentum)
        self.num_batches_tracked.add_(1)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() not in (2, 4):
            raise ValueError(f"expected 2D or 4D input (got {input.dim()}D input)")

    def extra_repr(self) -> str:
        return f"{self.num_features}, images={self.images}, eps={self.eps}, momentum={self.momentum}"


class MovingNoise(nn.Module):
    """Noise with a mean and a scale that move at every step: the layer's output distribution is unstable.

    Behind a batch norm this is the "noisy" batch norm of Santurkar et al. 2018 (section 2.1 and appendix).
    If batch norm helped because it keeps the distributions of layer inputs steady, this noise would undo it.
    In training mode, at each step, for each channel c, each image and each pixel:

        mu_c    ~ uniform(-0.5, 0.5)                  one a step and channel
        sigma_c ~ uniform(1, 1.25)
        m       ~ uniform(mu_c - 0.1, mu_c + 0.1)     one an activation
        s       ~ normal(sigma_c, 0.1)                0.1 is the standard deviation
        y       = s · x + m

    Algorithm and constants (n_mu, n_sigma, r_mu, r_sigma) are recalled from the paper's appendix. That each
    activation of each image has noise of non-zero mean and non-unit variance was looked up in a summary.
    The numbers come from the global generator, as dropout's. In evaluation mode y = x.
    """

    MEAN, SCALE = 0.5, 1.25  # n_mu, n_sigma: how far mean and scale move
    SPREAD = 0.1  # r_mu and r_sigma: how much the noise of two activations of a channel differs

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C) or (N, C, H, W) -> the same shape and dtype."""
        if not self.training:
            return x
        moving = x.new_empty((2, self.channels) + (1,) * (x.dim() - 2))  # mean and scale of each channel
        mean = moving[0].uniform_(-self.MEAN, self.MEAN)
        scale = moving[1].uniform_(1, self.SCALE)
        summand = torch.empty_like(x).uniform_(-self.SPREAD, self.SPREAD) + mean
        factor = torch.randn_like(x) * self.SPREAD + scale
        return torch.addcmul(summand, factor, x)

    def extra_repr(self) -> str:
        return str(self.channels)
