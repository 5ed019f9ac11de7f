"""The steps of an epoch: trained one after another, what they give kept on the device until it is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor, nn

from bnexp.compute.processes import SINGLE_PROCESS, Processes
from bnexp.data import Batches
from bnexp.errors import Diverged
from bnexp.training.progress import Progress

# images (B, C, H, W), labels (B,), their share of a batch -> loss () and logits (B, K) before the update
Step = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]


class Recorder(Protocol):
    """What the loop tells the loggers."""

    def steps(self, first_step: int, losses: list[float]) -> None: ...
    def epoch(self, values: dict[str, float], epoch: int, model: nn.Module) -> None: ...


class Steps(Protocol):
    """A way to take an epoch's steps. Once it is under way nothing waits for the device."""

    def epoch(
        self, step: Step, batches: Batches, batch_size: int, seed: int, epoch: int, first: int
    ) -> Iterator[int]:
        """Takes the epoch's batches from number ``first`` on; gives each one's images when it is launched.

        ``step`` trains on a share of a batch.
        """

    def read(self) -> tuple[Tensor, Tensor]:
        """The losses (S,) of the steps since the last reading, and how many images they had right ()."""


class PlainSteps:
    """Every operation of a step launched by itself."""

    def __init__(self, processes: Processes = SINGLE_PROCESS) -> None:
        self.processes = processes
        self.losses: list[Tensor] = []
        self.logits: list[Tensor] = []
        self.labels: list[Tensor] = []

    def epoch(
        self, step: Step, batches: Batches, batch_size: int, seed: int, epoch: int, first: int
    ) -> Iterator[int]:
        for images, labels in islice(batches.epoch(batch_size, seed, epoch), first, None):
            size = len(labels)
            images, labels = self.processes.share(images, labels)
            loss, logits = step(images, labels, len(labels) / size)
            self.losses.append(loss)
            self.logits.append(logits)
            self.labels.append(labels)
            yield size

    def read(self) -> tuple[Tensor, Tensor]:
        hits = (torch.cat(self.logits).argmax(1) == torch.cat(self.labels)).sum()
        losses = torch.stack(self.losses)
        self.losses, self.logits, self.labels = [], [], []
        return losses, hits


class Meter:
    """The steps since the last reading."""

    def __init__(self, steps: Steps, processes: Processes = SINGLE_PROCESS) -> None:
        self.steps, self.processes = steps, processes
        self.sizes: list[int] = []  # images of each, in all processes

    def __len__(self) -> int:
        return len(self.sizes)

    def add(self, size: int) -> None:
        self.sizes.append(size)

    def drain(self, recorder: Recorder, progress: Progress) -> None:
        """Reads the window, the one CPU-GPU sync point of training, into the tally; raises Diverged."""
        if not self.sizes:
            return
        found, hits = self.steps.read()
        losses = self.processes.sum_(found).tolist()
        first = progress.step - len(losses) + 1
        progress.tally.losses += [loss * size for loss, size in zip(losses, self.sizes, strict=True)]
        progress.tally.correct += int(self.processes.sum_(hits))
        self.sizes = []
        recorder.steps(first, losses)
        for step, loss in enumerate(losses, first):
            if not math.isfinite(loss):
                raise Diverged(f"the loss became {loss} in epoch {progress.epoch + 1}, step {step}")
