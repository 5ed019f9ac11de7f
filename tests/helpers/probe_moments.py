"""Moments of a training without a run: a tiny float64 network and a batch."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from bnexp.config.schema import ProbeKeys
from bnexp.probes.probe import Moment, Setup


def tiny_network(norm, seed: int = 0) -> nn.Module:
    """4 inputs, two layers of 5 tanh units with ``norm(5)``, 3 classes; float64."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Linear(4, 5), norm(5), nn.Tanh(), nn.Linear(5, 5), norm(5), nn.Tanh(), nn.Linear(5, 3)
    )
    return network.double()


def make_moment(network: nn.Module, *, lr: float = 0.1, loss=None, layers=(), step: int = 1) -> Moment:
    """A batch of 12 vectors (12, 4), which are also ``setup.sample()``."""
    stream = torch.Generator().manual_seed(1)
    images = torch.randn(12, 4, generator=stream, dtype=torch.float64)
    labels = torch.arange(12) % 3
    data = SimpleNamespace(train=SimpleNamespace(sample=lambda count: (images[:count], labels[:count])))
    setup = Setup(
        network, loss or nn.CrossEntropyLoss(), data, ProbeKeys(layers=tuple(layers)), 12, 12, 0, lambda: lr
    )
    return Moment(setup, step, images, labels)
