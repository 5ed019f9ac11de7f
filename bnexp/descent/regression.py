"""Linear regression as an objective: the loss of a step is that of its batch of examples."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bnexp.config.validation import Count
from bnexp.descent.functions import Point
from bnexp.descent.table import Table, load_table
from bnexp.seeding import generator


class Regression:
    """Squared error / 2 of the prediction X w + b, the mean over examples.

    The point is (w, b): a weight for each feature, then the bias. ``batch_size`` None takes all examples in
    every step: the full gradient. Each epoch has an order of its own, from the seed.
    """

    def __init__(self, table: str | None, rows: Count | None, batch_size: int | None, seed: int) -> None:
        self.table: Table = load_table(table, rows)
        count = len(self.table.target)
        ones = self.table.features.new_ones(count, 1)
        self.inputs = torch.cat([self.table.features, ones], 1)  # (N, d), the last column is 1 for the bias
        self.batch_size = min(batch_size or count, count)
        self.steps_per_epoch = -(-count // self.batch_size)
        self.variables = (*self.table.names, "bias")
        self.seed = seed
        self._order = (-1, torch.arange(count))  # the epoch that it is for, and its examples
        self._minimum = tuple(torch.linalg.lstsq(self.inputs, self.table.target[:, None])[0][:, 0].tolist())

    def loss(self, point: Tensor, step: int) -> Tensor:
        """The mean over the batch of ``step`` (from 0) at ``point`` (d,)."""
        if self.batch_size == len(self.inputs):
            return self.value(point)
        batch = self.batch(step)
        return _half_mean_square(self.inputs[batch] @ point - self.table.target[batch])

    def value(self, point: Tensor) -> Tensor:
        """The mean over all examples at ``point`` (d,)."""
        return _half_mean_square(self.inputs @ point - self.table.target)

    def minimum(self, point: Point) -> Point:
        """The solution of the normal equations."""
        return self._minimum

    def batch(self, step: int) -> Tensor:
        """The examples of a step; the last batch of an epoch may be smaller."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            numbers = generator(self.seed, "order", epoch)
            self._order = epoch, torch.randperm(len(self.inputs), generator=numbers)
        return self._order[1][place * self.batch_size : (place + 1) * self.batch_size]

    def examples_after(self, step: int) -> int:
        """The number of examples that the first ``step`` steps use."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return epoch * len(self.inputs) + min(place * self.batch_size, len(self.inputs))


def _half_mean_square(residuals: Tensor) -> Tensor:
    return residuals.square().mean() / 2


class ByHand(NamedTuple):
    """Where gradient descent without torch arrives, and the seconds that its steps took."""

    point: Point
    seconds: float


def descend_by_hand(regression: Regression, start: Point, rates: Sequence[float]) -> ByHand:
    """Gradient descent written out with numpy: a step for each learning rate in ``rates``.

    The loss of a batch is |X w - y|^2 / (2 n), so its gradient is X^T (X w - y) / n.
    """
    inputs, target = regression.inputs.numpy(), regression.table.target.numpy()
    batches = [regression.batch(step).numpy() for step in range(len(rates))]
    w = np.array(start)
    begin = time.perf_counter()
    for batch, lr in zip(batches, rates, strict=True):
        x, y = inputs[batch], target[batch]
        w = w - lr * x.T @ (x @ w - y) / len(y)
    return ByHand(tuple(w.tolist()), time.perf_counter() - begin)
