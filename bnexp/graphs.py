"""A whole training step as one CUDA graph: what takes a hundred launches is launched as one.

Small networks leave a GPU waiting for Python; a graph is recorded once and replayed at every step. By
torch's notes on CUDA graphs: static inputs, a warm-up aside, an optimizer that keeps its state on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
WARM_UP = 3  # steps before the capture, which take what is taken once: optimizer state, algorithms, handles


def make_capturable(optimizer: Optimizer) -> bool:
    """Lets ``optimizer`` run inside a graph; False where it can't. Call it before its first step."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
        elif type(optimizer) is SGD:  # of its kernels the fused one reads its rate from the device
            group["fused"] = True
        else:
            return False
    return True


class GraphedStep:
    """``step`` for batches of one size, recorded as a graph; any other batch, the last one, is a plain step.

    ``step`` takes images and labels, updates the parameters and returns the loss and the logits, all on the
    GPU and never waiting for it. The first calls are plain too: every batch trains exactly once. A learning
    rate may change at any time; whatever else changes in the optimizer has the graph recorded anew.
    """

    def __init__(self, step: Step, optimizer: Optimizer, batch_size: int) -> None:
        self.step, self.optimizer, self.batch_size = step, optimizer, batch_size
        self.warm = 0
        self.replay: Callable[[], None] | None = None
        self.fixed: list[dict[str, Any]] = []  # what the recorded graph holds as constants

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss () and logits (B, K), as ``step`` gives them, and the caller's to keep."""
        if len(labels) != self.batch_size:
            return self.step(images, labels)
        if self.warm < WARM_UP:
            self.warm += 1
            return self._aside(images, labels)
        if self.replay is None or self.fixed != self._constants():
            self._record(images, labels)
        assert self.replay is not None
        self.images.copy_(images)
        self.labels.copy_(labels)
        self._set_rates()
        self.replay()
        return self.loss.clone(), self.logits.clone()  # the next replay writes over them

    def _set_rates(self) -> None:
        """Brings the graph's rates up to the optimizer's, which stay numbers: a scheduler reads them."""
        for number, group in enumerate(self.optimizer.param_groups):
            if group["lr"] != self.numbers[number]:
                self.rates[number].fill_(group["lr"])
                self.numbers[number] = group["lr"]

    def _constants(self) -> list[dict[str, Any]]:
        skipped = ("params", "lr", "initial_lr")
        return [{k: v for k, v in g.items() if k not in skipped} for g in self.optimizer.param_groups]

    def _record(self, images: Tensor, labels: Tensor) -> None:
        groups = self.optimizer.param_groups
        self.images, self.labels = images.clone(), labels.clone()
        self.fixed = self._constants()
        self.numbers = [float(group["lr"]) for group in groups]
        self.rates = [torch.full((), number, device=images.device) for number in self.numbers]
        try:
            for rate, group in zip(self.rates, groups, strict=True):
                group["lr"] = rate
            self.replay = self._captured()
        finally:
            for number, group in zip(self.numbers, groups, strict=True):
                group["lr"] = number

    def _captured(self) -> Callable[[], None]:
        """Records the step on the static tensors; nothing is computed until it is replayed."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.loss, self.logits = self.step(self.images, self.labels)
        return graph.replay

    def _aside(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """A plain step on a stream of its own, as a capture will be."""
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            done = self.step(images, labels)
        here.wait_stream(aside)
        for tensor in done:
            tensor.record_stream(here)
        return done
