"""Several networks of one architecture as one: the leaves that replace a network's own.

R replicas lie side by side in the channels, replica after replica: a map is (N, R·C, H, W), a vector
(N, R·F). Each parameter and buffer of a fused leaf is that of the R networks, joined along its first
dimension. A scalar, such as the number of batches of a batch norm, is the same in all of them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bnexp.models import blocks, conv, densenet, lenet, mlp, norms, pooling, residual_mlp, resnet
from bnexp.models.norm_variants import GhostBatchNorm


class NotFusable(Exception):
    """A network has no fused form; ``str(error)`` is the reason in a sentence."""


class FusedConv2d(nn.Conv2d):
    """R convolutions side by side: one group each. All R may take the same images instead.

    (N, R·in, S, S) or (N, in, S, S) -> (N, R·out, T, T).
    """

    def __init__(self, single: nn.Conv2d, replicas: int) -> None:
        super().__init__(
            replicas * single.in_channels, replicas * single.out_channels, single.kernel_size,  # type: ignore[arg-type]
            single.stride, single.padding, groups=replicas, bias=single.bias is not None,  # type: ignore[arg-type]
        )  # fmt: skip
        self.shared_channels = single.in_channels

    def forward(self, input: Tensor) -> Tensor:
        groups = 1 if input.shape[1] == self.shared_channels else self.groups
        return F.conv2d(input, self.weight, self.bias, self.stride, self.padding, groups=groups)


class FusedLinear(nn.Module):
    """R linear layers side by side, as one batched product. All R may take the same vectors instead.

    (N, R·in) or (N, in) -> (N, R·out).
    """

    def __init__(self, single: nn.Linear, replicas: int) -> None:
        super().__init__()
        self.replicas, self.in_features, self.out_features = replicas, single.in_features, single.out_features
        self.weight = nn.Parameter(torch.empty(replicas * single.out_features, single.in_features))
        has_bias = single.bias is not None
        self.bias = nn.Parameter(torch.empty(replicas * single.out_features)) if has_bias else None

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[1] == self.in_features:
            return F.linear(input, self.weight, self.bias)
        outputs = _BatchedProduct.apply(input, self.weight, self.replicas)
        return outputs if self.bias is None else outputs + self.bias


class _BatchedProduct(torch.autograd.Function):
    """The product of each replica's vectors with its own matrix: (N, R·in) and (R·out, in) -> (N, R·out).

    The gradients have the memory layout of what they belong to. Autograd's own would be transposed: the
    activation in front of the layer takes 18 times as long with such a gradient (8 MLPs of MNIST).
    """

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, replicas: int) -> Tensor:
        ctx.save_for_backward(input, weight)
        ctx.replicas = replicas
        vectors, matrices = input.unflatten(1, (replicas, -1)), weight.unflatten(0, (replicas, -1))
        return torch.bmm(matrices, vectors.permute(1, 2, 0)).permute(2, 0, 1).flatten(1).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        vectors, matrices = input.unflatten(1, (ctx.replicas, -1)), weight.unflatten(0, (ctx.replicas, -1))
        gradients = gradient.unflatten(1, (ctx.replicas, -1))  # (N, R, out)
        input_gradient = None
        if ctx.needs_input_grad[0]:
            input_gradient = torch.bmm(gradients.transpose(0, 1), matrices).transpose(0, 1).flatten(1)
        weight_gradient = torch.bmm(gradients.permute(1, 2, 0), vectors.transpose(0, 1)).flatten(0, 1)
        return input_gradient, weight_gradient, None


class FusedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm of maps (N, C, H, W), with accurate statistics in channels_last.

    torch's kernel for channels_last adds up the N·H·W values of a channel one by one in float32. Where the
    mean of a channel is large beside its spread, its results are off by 1e-3. Here the N values of each pixel
    are summed first, and then those sums: as accurate as torch's kernel for contiguous maps, and twice as
    fast.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, single: nn.BatchNorm2d, replicas: int) -> None:
        super().__init__(replicas * single.num_features, single.eps, single.momentum)

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or input.is_contiguous():
            return super().forward(input)
        output, mean, var = _BatchNormFunction.apply(input, self.weight, self.bias, self.eps)
        momentum, m = self.momentum or 0.0, input.numel() // self.num_features
        self.running_mean.mul_(1 - momentum).add_(mean, alpha=momentum)
        self.running_var.mul_(1 - momentum).add_(var, alpha=momentum * m / (m - 1))
        self.num_batches_tracked.add_(1)
        return output


class _BatchNormFunction(torch.autograd.Function):
    """Output, mean (C,) and biased variance (C,) of maps in channels_last."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, ...]:
        count, channels = maps.shape[:2]
        rows = maps.permute(0, 2, 3, 1).reshape(count, -1)  # (N, H·W·C), a view
        average = maps.new_full((1, count), 1 / count)
        means = (average @ rows).view(-1, channels)  # (H·W, C), of each pixel over the images
        variances = (average @ (rows - means.flatten()).square_()).view(-1, channels)
        mean = means.mean(0)
        var = variances.mean(0) + (means - mean).square().mean(0)  # within the pixels, and between them
        output, _, _ = torch.native_batch_norm(maps, weight, bias, mean, var, False, 0.0, eps)
        ctx.save_for_backward(maps, weight, mean, torch.rsqrt(var + eps))
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, var)
        return output, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight, mean, inverse_std = ctx.saved_tensors
        gradients = torch.ops.aten.native_batch_norm_backward(
            gradient, maps, weight, None, None, mean, inverse_std, True, ctx.eps, [True, True, True]
        )
        return *gradients, None


class FusedConcatenate(nn.Module):
    """Joins the channels of two maps replica by replica.

    (N, R·A, S, S) and (N, R·B, S, S) -> (N, R·(A + B), S, S).
    """

    def __init__(self, single: densenet.Concatenate, replicas: int) -> None:
        super().__init__()
        self.replicas = replicas

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        if first.is_contiguous():
            parts = [maps.unflatten(1, (self.replicas, -1)) for maps in (first, second)]
            return torch.cat(parts, 2).flatten(1, 2)
        # Channels last: the same with the channels in the last dimension, where they lie in memory.
        parts = [maps.permute(0, 2, 3, 1).unflatten(3, (self.replicas, -1)) for maps in (first, second)]
        return torch.cat(parts, 4).flatten(3).permute(0, 3, 1, 2)


class FusedScale(blocks.Scale):
    """The factor of each replica times its features: (N, R·F) -> (N, R·F)."""

    def __init__(self, single: blocks.Scale, replicas: int) -> None:
        super().__init__(0.0)
        self.factor = nn.Parameter(torch.empty(replicas))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor.repeat_interleave(x.shape[1] // len(self.factor))


class FusedShift(blocks.Shift):
    """The features of each replica plus its summand: (N, R·F) -> (N, R·F)."""

    def __init__(self, single: blocks.Shift, replicas: int) -> None:
        super().__init__()
        self.summand = nn.Parameter(torch.empty(replicas))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.summand.repeat_interleave(x.shape[1] // len(self.summand))


def _ghost_batch_norm(single: GhostBatchNorm, replicas: int) -> nn.Module:
    return GhostBatchNorm(replicas * single.num_features, single.images, single.eps, single.momentum or 0.0)


def _batch_norm_1d(single: nn.BatchNorm1d, replicas: int) -> nn.Module:
    return nn.BatchNorm1d(replicas * single.num_features, single.eps, single.momentum)


def _manual_batch_norm(single: norms.BatchNorm, replicas: int) -> nn.Module:
    return norms.BatchNorm(replicas * single.num_features, single.eps, single.momentum)


def _instance_norm(single: nn.InstanceNorm2d, replicas: int) -> nn.Module:
    return nn.InstanceNorm2d(replicas * single.num_features, single.eps, affine=single.affine)


def _group_norm(single: nn.GroupNorm, replicas: int) -> nn.Module:
    return nn.GroupNorm(replicas * single.num_groups, replicas * single.num_channels, single.eps)


def _layer_norm(single: nn.LayerNorm, replicas: int) -> nn.Module:
    """A layer norm of vectors (N, F) is a group norm with one group."""
    return nn.GroupNorm(replicas, replicas * single.normalized_shape[0], single.eps)


# Each leaf with parameters or with an order of its channels, and what makes its fused form.
SWAPS: dict[type[nn.Module], Callable[[Any, int], nn.Module]] = {
    nn.Conv2d: FusedConv2d,
    nn.Linear: FusedLinear,
    nn.BatchNorm1d: _batch_norm_1d,
    nn.BatchNorm2d: FusedBatchNorm2d,
    norms.BatchNorm: _manual_batch_norm,
    GhostBatchNorm: _ghost_batch_norm,
    nn.InstanceNorm2d: _instance_norm,
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _layer_norm,
    densenet.Concatenate: FusedConcatenate,
    blocks.Scale: FusedScale,
    blocks.Shift: FusedShift,
}
# These treat each channel alone, or only call other modules: they stay as they are.
UNCHANGED: tuple[type[nn.Module], ...] = (
    *(type(activation()) for activation in blocks.ACTIVATIONS.values()),
    nn.Identity, nn.Sequential, nn.ModuleList, nn.MaxPool2d, nn.AvgPool2d, pooling.MaxPool,
    blocks.GlobalAverage, blocks.Stem, conv.ConvNet, lenet.LeNet, mlp.MLP, residual_mlp.ResidualBlock,
    resnet.ResNet, resnet.BasicBlock, resnet.BottleneckBlock, resnet.PreactBlock,
    densenet.DenseNet, densenet.DenseBlock,
)  # fmt: skip


def fuse(networks: Sequence[nn.Module]) -> nn.Module:
    """One network with the weights and buffers of ``networks``, which have the same architecture.

    The network takes images (N, R·C, S, S), or (N, C, S, S) that all replicas see, and gives logits
    (N, R·K). Raises NotFusable if a module has no fused form.
    """
    fused = copy.deepcopy(networks[0])
    for name, module in list(fused.named_modules()):
        if type(module) in SWAPS:
            fused.set_submodule(name, SWAPS[type(module)](module, len(networks)))
        elif type(module) not in UNCHANGED:
            raise NotFusable(
                f"{type(module).__name__} ({name or 'the network'}) has no form for several seeds"
            )
    dtype = next(networks[0].parameters()).dtype
    fused.to(dtype).train(networks[0].training)
    fused.load_state_dict(join_states([network.state_dict() for network in networks]))
    return fused


def join_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Joins the tensors of the same name along their first dimension; scalars and others are the first's."""
    return {
        name: torch.cat([state[name] for state in states]) if is_joined(value) else value
        for name, value in states[0].items()
    }


def split_state(state: Mapping[str, Any], replicas: int, replica: int) -> dict[str, Any]:
    """The part of one replica, as copies: names and shapes are those of a network that is trained alone."""
    return {
        name: value.chunk(replicas)[replica].clone(memory_format=torch.contiguous_format)
        if is_joined(value)
        else copy.deepcopy(value)
        for name, value in state.items()
    }


def is_joined(value: object) -> bool:
    """Whether a value of a fused state has a part for each replica."""
    return isinstance(value, Tensor) and value.dim() > 0
