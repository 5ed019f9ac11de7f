"""A whole training step as one CUDA graph: what takes a hundred launches is launched as one.

Small networks leave a GPU waiting for Python; a graph is recorded once and replayed at every step. By
torch's notes on CUDA graphs: static inputs, a warm-up aside, an optimizer that keeps its state on the device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from bnexp.data import Batches
from bnexp.errors import one_line
from bnexp.seeding import seed_global
from bnexp.training.metrics import Step, Steps

WARM_UP = 3  # steps before the capture: what is taken once, optimizer state, algorithms, handles
TRIAL = 20  # steps after it by which a graph is judged
TOLERANCE = 1e-3  # relative, on each one's loss: a GPU may sum in another order at every launch


def is_capturable(optimizer: Optimizer) -> bool:
    """Whether ``optimizer`` can run inside a graph."""
    if type(optimizer) is SGD:
        return not any(group["foreach"] for group in optimizer.param_groups)  # they would win over fused ones
    return all("capturable" in group for group in optimizer.param_groups)


def make_capturable(optimizer: Optimizer) -> None:
    """Has a ``capturable`` optimizer keep what changes on the device. Call it before its first step."""
    for group in optimizer.param_groups:
        # Of SGD's kernels the fused one reads its rate from the device.
        group["fused" if type(optimizer) is SGD else "capturable"] = True
    optimizer._warned_capturable_if_run_uncaptured = True  # else a copy warns of its first, plain steps


class CudaGraphSteps:
    """Steps recorded as a graph: gather, augmentation, forward, loss, backward, update and metrics.

    The step is all on the GPU and never waits for it. The first ones, and those of a batch of another size,
    the last one, are launched plainly: every batch trains exactly once. A learning rate may change at any
    time; whatever else changes in the optimizer has the graph recorded anew.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.batches: Batches | None = None
        self.batch_size = 0
        self.fixed: list[dict[str, Any]] = []  # what the recorded graph holds as constants

    def epoch(
        self, step: Step, batches: Batches, batch_size: int, seed: int, epoch: int, first: int
    ) -> Iterator[int]:
        if batches is not self.batches or batch_size != self.batch_size:
            self._settle(batches, batch_size)
        self.order.copy_(batches.order(seed, epoch))
        torch.arange(first * batch_size, (first + 1) * batch_size, out=self.places)
        self.seen = self.taken = first * batch_size
        for start in range(first * batch_size, len(batches), batch_size):
            size = min(batch_size, len(batches) - start)
            self._follow_rates()
            if size < batch_size:
                self._plain(step, size)
            elif self.warm < WARM_UP:
                self.warm += 1
                self._aside(step, strict=self.warm == WARM_UP)
            else:
                self._replayed(step)
            self.taken += size
            yield size

    def read(self) -> tuple[Tensor, Tensor]:
        new = slice(self.seen, self.taken)
        self.seen = self.taken
        hits = (self.found[new] == self.order.labels[new]).sum()
        return self.losses[new][:: self.batch_size].clone(), hits

    def _settle(self, batches: Batches, batch_size: int) -> None:
        """Gives all that steps read and write its place in memory, where a graph will look for it."""
        self.batches, self.batch_size = batches, batch_size
        self.order = batches.order(0, 0)
        count, device = len(batches), self.order.rows.device
        self.places = torch.zeros(batch_size, dtype=torch.int64, device=device)  # of this batch, in the order
        self.losses = torch.zeros(count, device=device)  # of each batch, at its first image's place
        self.found = torch.zeros(count, dtype=torch.int64, device=device)  # each image's most likely class
        self.numbers = [float("nan") for _ in self.optimizer.param_groups]  # what is in the rates
        self.rates = [torch.zeros((), device=device) for _ in self.numbers]
        self.warm = 0
        self.replay: Callable[[], None] | None = None

    def _follow_rates(self) -> None:
        """The optimizer's rates stay numbers, for schedulers to read; steps take them from the device."""
        for place, group in enumerate(self.optimizer.param_groups):
            if group["lr"] != self.numbers[place]:
                self.numbers[place] = group["lr"]
                self.rates[place].fill_(group["lr"])

    def _plain(self, step: Step, size: int) -> None:
        """The step of the next ``size`` images, from bytes to metrics. This is what a graph holds."""
        assert self.batches is not None
        groups = self.optimizer.param_groups
        places = self.places[:size]
        images, labels = self.batches.take(self.order, places)
        try:
            for group, rate in zip(groups, self.rates, strict=True):
                group["lr"] = rate
            loss, logits = step(images, labels, 1.0)
        finally:
            for group, number in zip(groups, self.numbers, strict=True):
                group["lr"] = number
        self.losses.index_copy_(0, places[:1], loss.float().view(1))
        self.found.index_copy_(0, places, logits.argmax(1))
        self.places += self.batch_size

    def _replayed(self, step: Step) -> None:
        constants = self._constants()
        if self.replay is None or self.fixed != constants:
            self.replay, self.fixed = self._captured(step), constants
        self.replay()

    def _constants(self) -> list[dict[str, Any]]:
        skipped = ("params", "lr", "initial_lr")
        return [{k: v for k, v in g.items() if k not in skipped} for g in self.optimizer.param_groups]

    @cached_property
    def stream(self) -> torch.cuda.Stream:
        """One of this device: torch keeps one for all captures of a process, of the first one's device."""
        return torch.cuda.Stream()

    def _captured(self, step: Step) -> Callable[[], None]:
        """Records the step of a whole batch; nothing is computed until it is replayed."""
        graph, here = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                self._plain(step, self.batch_size)
        finally:
            torch.cuda.set_stream(here)  # which a capture that fails may leave elsewhere
        return graph.replay

    def _aside(self, step: Step, *, strict: bool) -> None:
        """A plain step on the capture's stream; if ``strict``, one that raises where it waits for the GPU."""
        here, before = torch.cuda.current_stream(), torch.cuda.get_sync_debug_mode()
        self.stream.wait_stream(here)
        torch.cuda.set_sync_debug_mode("error" if strict else before)  # a capture that fails leaves traces
        try:
            with torch.cuda.stream(self.stream):
                self._plain(step, self.batch_size)
        finally:
            torch.cuda.set_sync_debug_mode(before)
        here.wait_stream(self.stream)


Way = Callable[[], tuple[Steps, Step]]  # makes steps, and what they train


def trial(plain: Way, graphed: Way, batches: Batches, batch_size: int) -> tuple[bool, str]:
    """Whether ``graphed`` gives the losses that ``plain`` does and gives them faster, and in words.

    What the two train must have the same start. Plain steps get their batches for nothing here, as they are
    made many at a time before the clock starts; a graph that is taken is faster all the same.
    """
    try:
        expected, plain_s = _tried(*plain(), batches, batch_size)  # gone when the other begins
        found, graphed_s = _tried(*graphed(), batches, batch_size)
    except Exception as error:  # whatever it is: if plain steps have it too, the run will say
        return False, f"it can't be recorded ({one_line(error)[:200] or type(error).__name__})"
    if not torch.allclose(found, expected, rtol=TOLERANCE, atol=0.0, equal_nan=True):
        return False, "it gives other losses"
    faster = plain_s / graphed_s
    return faster > 1, f"{faster:.2g} x as fast in a trial of {TRIAL} steps"


def _tried(steps: Steps, step: Step, batches: Batches, batch_size: int) -> tuple[Tensor, float]:
    """The losses of some steps, of several epochs if need be, and the seconds of those after the capture.

    An epoch's last batch comes before them and after them: it may be of another size, which takes another
    look for the fastest kernels, and memory beside the graph's.
    """
    seed_global(0, "trial")
    last, whole = batches.steps(batch_size) - 1, WARM_UP + 1 + TRIAL
    taken, epoch, started = 0, 0, 0.0

    def some(first: int, most: int) -> Iterator[int]:
        return islice(steps.epoch(step, batches, batch_size, 0, epoch, first), most)

    list(some(last, 1))
    losses = [steps.read()[0]]
    while taken < whole:
        epoch += 1
        for _ in some(0, whole - taken):
            taken += 1
            if taken == whole - TRIAL:
                _finished(batches)
                started = time.perf_counter()
        losses.append(steps.read()[0])
    _finished(batches)
    seconds = time.perf_counter() - started
    list(some(last, 1))
    losses.append(steps.read()[0])
    return torch.cat(losses), seconds


def _finished(batches: Batches) -> None:
    """Waits for the device."""
    if batches.labels.device.type == "cuda":
        torch.cuda.synchronize()
