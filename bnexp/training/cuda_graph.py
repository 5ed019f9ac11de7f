"""A whole training step as one CUDA graph: one launch instead of a hundred.

Small networks leave a GPU waiting for Python. A graph is captured once and replayed at every step. The rules
are those of torch's notes on CUDA graphs: static inputs, warm-up steps on another stream, an optimizer that
keeps its state on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch.optim import SGD, Optimizer

from bnexp.data import Batch, Split
from bnexp.data.batches import Order
from bnexp.training.metrics import StepOutput
from bnexp.training.trainer import Trainer

WARM_UP_STEPS = 3  # they create what is created once: optimizer state, kernel choices, library handles


def is_capturable(optimizer: Optimizer) -> bool:
    """Whether ``optimizer`` can run inside a graph."""
    if type(optimizer) is SGD:
        return not any(group["foreach"] for group in optimizer.param_groups)  # foreach would win over fused
    return all("capturable" in group for group in optimizer.param_groups)


def make_capturable(optimizer: Optimizer) -> None:
    """Makes a capturable optimizer keep its changing values on the device. Call it before its first step."""
    for group in optimizer.param_groups:
        # SGD has no capturable flag, but its fused kernel reads the learning rate from the device.
        group["fused" if type(optimizer) is SGD else "capturable"] = True
    optimizer._warned_capturable_if_run_uncaptured = True  # the warm-up steps are not captured: no warning


class CudaGraphTrainer(Trainer):
    """A trainer whose step is a CUDA graph: gather, augmentation, forward, loss, backward, update, metrics.

    The step runs on the GPU alone and never waits for it. The warm-up steps and batches of another size (the
    last one of an epoch) are launched plainly, so every batch trains exactly once. The learning rate may
    change at any time; any other change in the optimizer causes a new capture. The graph is for batches of
    ``batch_size`` from ``split``. ``trainer`` is a plain one without scaler, compilation or further
    processes.
    """

    def __init__(self, trainer: Trainer, split: Split, batch_size: int) -> None:
        super().__init__(
            trainer.model, trainer.loss, trainer.optimizer, trainer.device,
            schedule=trainer.schedule, l1=trainer.l1, grad_clip=trainer.grad_clip, seed=trainer.seed,
        )  # fmt: skip
        self.split, self.batch_size = split, batch_size
        self._allocate_buffers()
        self.copied_order: Order | None = None  # what was copied to device_order
        self.warm_up_steps_done = 0
        self.replay_graph: Callable[[], None] | None = None
        self.captured_settings: list[dict[str, Any]] = []

    def _allocate_buffers(self) -> None:
        """Allocates what the graph reads and writes: a graph uses fixed addresses."""
        self.device_order = self.split.order(0, 0)
        count, device = len(self.split), self.device_order.rows.device
        self.positions = torch.zeros(self.batch_size, dtype=torch.int64, device=device)  # of the batch
        self.losses = torch.zeros(count, device=device)  # of each batch, at its first image's position
        self.classes = torch.zeros(count, dtype=torch.int64, device=device)  # predicted for each image
        self.device_lrs = [torch.zeros((), device=device) for _ in self.optimizer.param_groups]
        self.copied_lrs = [float("nan") for _ in self.device_lrs]  # their values, known on the host

    def step(self, batch: Batch) -> StepOutput:
        if batch.order is not self.copied_order:
            self._start_epoch(batch)
        self._copy_learning_rates()
        if batch.size < self.batch_size:
            self._step_at_positions(batch.size)
        elif self.warm_up_steps_done < WARM_UP_STEPS:
            self.warm_up_steps_done += 1
            self._warm_up(raise_on_sync=self.warm_up_steps_done == WARM_UP_STEPS)
        else:
            self._replay_or_capture()
        images = slice(batch.start, batch.start + batch.size)
        return StepOutput(
            self.losses[batch.start], self.classes[images], self.device_order.labels[images], batch.size
        )

    def _start_epoch(self, batch: Batch) -> None:
        self.copied_order = batch.order
        self.device_order.copy_(batch.order)
        torch.arange(batch.start, batch.start + self.batch_size, out=self.positions)

    def _copy_learning_rates(self) -> None:
        """Schedulers read and write the rates as numbers; the steps read them from the device."""
        for index, group in enumerate(self.optimizer.param_groups):
            if group["lr"] != self.copied_lrs[index]:
                self.copied_lrs[index] = group["lr"]
                self.device_lrs[index].fill_(group["lr"])

    def _step_at_positions(self, size: int) -> None:
        """The step of the next ``size`` images, from uint8 pixels to metrics. This is what a graph holds."""
        groups, positions = self.optimizer.param_groups, self.positions[:size]
        images, labels = self.split.gather(self.device_order, positions)
        try:
            for group, device_lr in zip(groups, self.device_lrs, strict=True):
                group["lr"] = device_lr
            loss, logits = self.update(images, labels)
        finally:
            for group, lr in zip(groups, self.copied_lrs, strict=True):
                group["lr"] = lr
        self.losses.index_copy_(0, positions[:1], loss.float().view(1))
        self.classes.index_copy_(0, positions, logits.argmax(1))
        self.positions += self.batch_size

    def _replay_or_capture(self) -> None:
        settings = self._optimizer_settings()
        if self.replay_graph is None or self.captured_settings != settings:
            self.replay_graph, self.captured_settings = self._capture(), settings
        self.replay_graph()

    def _optimizer_settings(self) -> list[dict[str, Any]]:
        """What the graph holds as constants."""
        variable = ("params", "lr", "initial_lr")
        groups = self.optimizer.param_groups
        return [{key: value for key, value in group.items() if key not in variable} for group in groups]

    @cached_property
    def stream(self) -> torch.cuda.Stream:
        """A stream of this device. torch's own capture stream belongs to the first device that captured."""
        return torch.cuda.Stream()

    def _capture(self) -> Callable[[], None]:
        """Captures the step of a whole batch. Nothing is computed until the graph is replayed."""
        graph, current_stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                self._step_at_positions(self.batch_size)
        finally:
            torch.cuda.set_stream(current_stream)  # a failed capture may leave another one
        return graph.replay

    def _warm_up(self, *, raise_on_sync: bool) -> None:
        """A plain step on the capture stream; with ``raise_on_sync`` it raises where it waits for the GPU.

        The last warm-up step checks for waits, because a failed capture would leave traces in torch.
        """
        current_stream, sync_mode = torch.cuda.current_stream(), torch.cuda.get_sync_debug_mode()
        self.stream.wait_stream(current_stream)
        torch.cuda.set_sync_debug_mode("error" if raise_on_sync else sync_mode)
        try:
            with torch.cuda.stream(self.stream):
                self._step_at_positions(self.batch_size)
        finally:
            torch.cuda.set_sync_debug_mode(sync_mode)
        current_stream.wait_stream(self.stream)
