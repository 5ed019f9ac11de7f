"""A whole training step as one CUDA graph: what takes a hundred launches is launched as one.

Small networks leave a GPU waiting for Python; a graph is recorded once and replayed at every step. By
torch's notes on CUDA graphs: static inputs, a warm-up aside, an optimizer that keeps its state on the device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from bnexp.data import Batches
from bnexp.errors import one_line
from bnexp.seeding import seed_global
from bnexp.steps import Step, Steps

WARM_UP = 3  # steps before the capture: what is taken once, optimizer state, algorithms, handles
TRIAL = 20  # steps after it by which a graph is judged
TOLERANCE = 1e-3  # relative, on each one's loss: a GPU may sum in another order at every launch


def capturable(optimizer: Optimizer) -> bool:
    """Whether ``optimizer`` can run inside a graph."""
    return type(optimizer) is SGD or all("capturable" in group for group in optimizer.param_groups)


def make_capturable(optimizer: Optimizer) -> None:
    """Has a ``capturable`` optimizer keep what changes on the device. Call it before its first step."""
    for group in optimizer.param_groups:
        # Of SGD's kernels the fused one reads its rate from the device.
        group["fused" if type(optimizer) is SGD else "capturable"] = True
    optimizer._warned_capturable_if_run_uncaptured = True  # else a copy warns of its first, plain steps


class GraphedSteps:
    """Steps recorded as a graph: gather, augmentation, forward, loss, backward, update and metrics.

    ``step`` is all on the GPU and never waits for it. The first steps, and those of a batch of another size,
    the last one, are launched plainly: every batch trains exactly once. A learning rate may change at any
    time; whatever else changes in the optimizer has the graph recorded anew.
    """

    def __init__(self, step: Step, optimizer: Optimizer) -> None:
        self.step, self.optimizer = step, optimizer
        self.batches: Batches | None = None
        self.batch_size = 0
        self.fixed: list[dict[str, Any]] = []  # what the recorded graph holds as constants

    def epoch(self, batches: Batches, batch_size: int, seed: int, epoch: int, first: int) -> Iterator[int]:
        if batches is not self.batches or batch_size != self.batch_size:
            self._settle(batches, batch_size)
        self.order.copy_(batches.order(seed, epoch))
        torch.arange(first * batch_size, (first + 1) * batch_size, out=self.places)
        self.number.fill_(first)
        self.hits.zero_()
        self.taken = self.seen = first
        for start in range(first * batch_size, len(batches), batch_size):
            size = min(batch_size, len(batches) - start)
            if size < batch_size:
                self._one(size)
            elif self.warm < WARM_UP:
                self.warm += 1
                self._aside()
            else:
                self._replayed()
            self.taken += 1
            yield size

    def read(self) -> tuple[Tensor, Tensor]:
        losses, hits = self.losses[self.seen : self.taken].clone(), self.hits.clone()
        self.seen = self.taken
        self.hits.zero_()
        return losses, hits

    def _settle(self, batches: Batches, batch_size: int) -> None:
        """Gives all that steps read and write its place in memory, where a graph will look for it."""
        self.batches, self.batch_size = batches, batch_size
        self.order = batches.order(0, 0)
        device = self.order.rows.device
        self.places = torch.zeros(batch_size, dtype=torch.int64, device=device)  # in the order, of this batch
        self.number = torch.zeros(1, dtype=torch.int64, device=device)  # of the batch
        self.losses = torch.zeros(batches.steps(batch_size), device=device)  # of this epoch's batches
        self.hits = torch.zeros((), dtype=torch.int64, device=device)
        self.warm = 0
        self.replay: Callable[[], None] | None = None

    def _one(self, size: int) -> None:
        """The step of the next ``size`` images, from bytes to metrics. This is what a graph holds."""
        assert self.batches is not None
        images, labels = self.batches.take(self.order, self.places[:size])
        loss, logits = self.step(images, labels, 1.0)
        self.losses.index_copy_(0, self.number, loss.float().view(1))
        self.hits += (logits.argmax(1) == labels).sum()
        self.number += 1
        self.places += self.batch_size

    def _replayed(self) -> None:
        if self.replay is None or self.fixed != self._constants():
            self._record()
        assert self.replay is not None
        for number, group in enumerate(self.optimizer.param_groups):
            rate = group["lr"]  # it stays a number there, for schedulers to read
            if rate != self.numbers[number]:
                self.rates[number].fill_(rate)
                self.numbers[number] = rate
        self.replay()

    def _constants(self) -> list[dict[str, Any]]:
        skipped = ("params", "lr", "initial_lr")
        return [{k: v for k, v in g.items() if k not in skipped} for g in self.optimizer.param_groups]

    def _record(self) -> None:
        groups = self.optimizer.param_groups
        self.fixed = self._constants()
        self.numbers = [float(group["lr"]) for group in groups]
        self.rates = [torch.full((), number, device=self.hits.device) for number in self.numbers]
        try:
            for rate, group in zip(self.rates, groups, strict=True):
                group["lr"] = rate
            self.replay = self._captured()
        finally:
            for number, group in zip(self.numbers, groups, strict=True):
                group["lr"] = number

    def _captured(self) -> Callable[[], None]:
        """Records the step of a whole batch; nothing is computed until it is replayed."""
        graph = torch.cuda.CUDAGraph()
        # A stream of this device: torch keeps one for all captures of a process, of the first one's device.
        with torch.cuda.graph(graph, stream=torch.cuda.Stream()):
            self._one(self.batch_size)
        return graph.replay

    def _aside(self) -> None:
        """A plain step on a stream of its own, as a capture will be."""
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            self._one(self.batch_size)
        here.wait_stream(aside)


def trial(plain: Steps, graphed: Steps, batches: Batches, batch_size: int) -> tuple[bool, str]:
    """Whether ``graphed`` gives the losses that ``plain`` does and gives them faster, and in words.

    Both train, and must have the same start: copies.
    """
    try:
        expected, plain_s = _tried(plain, batches, batch_size)
        found, graphed_s = _tried(graphed, batches, batch_size)
    except Exception as error:  # whatever it is, it would have been the run's
        return False, f"it can't be recorded ({one_line(error)[:200] or type(error).__name__})"
    if not torch.allclose(found, expected, rtol=TOLERANCE, atol=0.0, equal_nan=True):
        return False, "it gives other losses"
    faster = plain_s / graphed_s
    return faster > 1, f"{faster:.2g} x as fast in a trial of {TRIAL} steps"


def _tried(steps: Steps, batches: Batches, batch_size: int) -> tuple[Tensor, float]:
    """The losses of some steps, of several epochs if need be, and the seconds of those after the capture."""
    seed_global(0, "trial")
    losses: list[Tensor] = []
    whole, taken, epoch, started = WARM_UP + 1 + TRIAL, 0, 0, 0.0
    while taken < whole:
        epoch += 1
        for _ in islice(steps.epoch(batches, batch_size, 0, epoch, 0), whole - taken):
            taken += 1
            if taken == whole - TRIAL:
                _finished(batches)
                started = time.perf_counter()
        losses.append(steps.read()[0])
    _finished(batches)
    return torch.cat(losses), time.perf_counter() - started


def _finished(batches: Batches) -> None:
    """Waits for the device."""
    if batches.labels.device.type == "cuda":
        torch.cuda.synchronize()
