"""A tiny data set, network and trainer, for tests of the step and the loop."""

from __future__ import annotations

import torch
from torch import nn

from bnexp.compute.device import ComputeDevice
from bnexp.data import DataSplits, Images, Split
from bnexp.runs.loggers import Logger
from bnexp.training.trainer import Trainer

CPU = ComputeDevice(torch.device("cpu"), torch.float32)


def batches(count: int = 50, seed: int = 0, device: str = "cpu", **keys) -> Split:
    """``count`` random images (1, 6, 6) of three classes."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 1, 6, 6), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 3, (count,), generator=generator)
    return Split(Images(pixels, labels), torch.device(device), mean=(0.5,), std=(0.5,), **keys)


def splits(train: Split | None = None, val: Split | None = None, test: Split | None = None) -> DataSplits:
    classes = ("a", "b", "c")
    return DataSplits(train or batches(), val, test or batches(20, 2), classes)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def trainer(model: nn.Module | None = None, *, lr: float = 0.1, make_schedule=None, **keys) -> Trainer:
    """A trainer with SGD; ``make_schedule(optimizer)`` gives its schedule."""
    model = network() if model is None else model
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    schedule = make_schedule(optimizer) if make_schedule else None
    loss = keys.pop("loss", nn.CrossEntropyLoss())
    return Trainer(model, loss, optimizer, keys.pop("device", CPU), schedule=schedule, **keys)


class RecordingLogger(Logger):
    """Keeps the losses of all steps and the metrics of all epochs."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.first_steps: list[int] = []
        self.epochs: list[tuple[int, dict[str, float]]] = []

    def steps(self, first_step, losses):
        assert losses, "a window without steps is not logged"
        self.first_steps.append(first_step)
        self.losses += losses

    def epoch(self, values, epoch, model):
        self.epochs.append((epoch, values))
