"""What the steps give: collected on the device, read together once in a window of steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bnexp.compute.processes import SINGLE_PROCESS, Processes


class StepOutput(NamedTuple):
    """What one step leaves on the device."""

    loss: Tensor  # (), before the update: the mean over the batch, or the share of it that this process has
    predictions: Tensor  # logits (B, K), or the classes (B,) if the step has already chosen them
    labels: Tensor  # (B,)
    batch_size: int  # images of the batch in all processes


@dataclass(frozen=True)
class Window:
    """The steps between two readings of the device."""

    losses: list[float]  # of each step
    batch_sizes: list[int]
    correct: int  # images that were classified correctly, in all steps


class Meter:
    """Collects the outputs of at most ``capacity`` steps; nothing waits for the device until ``read``."""

    def __init__(self, capacity: int, processes: Processes = SINGLE_PROCESS) -> None:
        self.capacity, self.processes = capacity, processes
        self.outputs: list[StepOutput] = []

    @property
    def is_empty(self) -> bool:
        return not self.outputs

    @property
    def is_full(self) -> bool:
        return len(self.outputs) >= self.capacity

    def add(self, output: StepOutput) -> None:
        self.outputs.append(output)

    def read(self) -> Window:
        """The window so far, over all processes; the meter is empty afterwards.

        Waits for the device. At least one step must have been added.
        """
        losses, predictions, labels, batch_sizes = zip(*self.outputs, strict=True)
        self.outputs = []
        classes = torch.cat(predictions)
        if classes.dim() == 2:
            classes = classes.argmax(1)
        correct = self.processes.sum_((classes == torch.cat(labels)).sum())
        step_losses = self.processes.sum_(torch.stack(losses))
        return Window(step_losses.tolist(), list(batch_sizes), int(correct))


def confusion_counts(labels: Tensor, predictions: Tensor, classes: int) -> Tensor:
    """Images int64 (K, K) by true and by predicted class, of K ``classes``.

    ``labels`` and ``predictions`` are int64 (N,). Images of other processes have the prediction -1.
    """
    is_own = predictions >= 0
    cells = labels[is_own] * classes + predictions[is_own]
    return torch.bincount(cells, minlength=classes * classes).view(classes, classes)


def confusion_pairs(counts: Tensor) -> dict[tuple[int, int], int]:
    """The cells of ``confusion_counts`` that hold images."""
    counts = counts.cpu()
    pairs = counts.nonzero()  # (n, 2)
    images = counts[pairs[:, 0], pairs[:, 1]].tolist()
    return {(label, prediction): n for (label, prediction), n in zip(pairs.tolist(), images, strict=True)}
