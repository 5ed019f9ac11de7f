"""One forward and backward pass of a fused network, held against the separate networks."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bnexp.compute.device import ComputeDevice
from bnexp.data import DataSplits
from bnexp.data.fused_batches import FusedData
from bnexp.training.fused.layers import NotFusable
from bnexp.training.fused.trainer import FusedLoss

# float32 has 1.2e-7. Sums in another order, divided by the spread of a small batch, lose two or three digits;
# a wrong layer is off by a tenth and more.
TOLERANCE = 1e-3
# A gradient that is zero but for rounding, as of a bias before a batch norm, is compared with the gradient of
# the whole network.
NETWORK_TOLERANCE = 1e-5


def require_same(
    fused: nn.Module,
    networks: Sequence[nn.Module],
    loss: nn.Module,
    data: FusedData,
    splits: Sequence[DataSplits],
    batch_size: int,
    device: ComputeDevice,
) -> None:
    """Raises NotFusable if losses, gradients or running statistics of the first batch differ.

    The networks stay as they are.
    """
    fused = copy.deepcopy(fused).train()
    images, labels = next(data.train.epoch(batch_size, epoch=1)).tensors()
    losses = FusedLoss(loss, len(networks))(fused(images), labels)
    losses.sum().backward()
    for replica, (single, split, seed) in enumerate(zip(networks, splits, data.train.seeds, strict=True)):
        network = copy.deepcopy(single).to(device.torch_device).train()
        single_images, single_labels = next(split.train.epoch(batch_size, seed, epoch=1)).tensors()
        single_loss = loss(network(single_images), single_labels)
        single_loss.backward()
        _require_close("loss", losses[replica], single_loss, 0.0)
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        scale = float(torch.stack([gradient.norm() for gradient in gradients]).norm())
        names = dict(network.named_parameters())
        for name, joined in fused.named_parameters():
            expected = names[name].grad
            if joined.grad is not None and expected is not None:
                part = joined.grad.chunk(len(networks))[replica]
                _require_close(f"gradient of {name}", part, expected, scale)
        buffers = dict(network.named_buffers())
        for name, statistics in fused.named_buffers():
            if statistics.dim():
                part = statistics.chunk(len(networks))[replica]
                _require_close(name, part, buffers[name], 0.0)


def _require_close(name: str, value: Tensor, expected: Tensor, scale: float) -> None:
    """``scale`` is the norm of the gradients of the whole network."""
    difference, norm = float((value - expected).norm().detach()), float(expected.norm().detach())
    if not difference <= TOLERANCE * norm + NETWORK_TOLERANCE * scale:
        raise NotFusable(f"the {name} of the first batch is {difference / (norm or 1.0):.1g} off, relatively")
