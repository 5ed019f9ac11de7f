"""The step, the epoch, the evaluation, and the loop over them.

A step never waits for the device: losses and logits stay there and are read together once in a window of
steps. What is recorded, where it is saved, when to stop: handed in as built objects.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bnexp.compute.device import ComputeDevice
from bnexp.compute.processes import SINGLE_PROCESS, Processes
from bnexp.compute.torch_overhead import unwrapped_backward, unwrapped_step
from bnexp.data import Batches
from bnexp.errors import UserError, one_line
from bnexp.seeding import global_rng_state, seed_global, set_global_rng_state
from bnexp.signals import StopSignal
from bnexp.training.cuda_graph import CudaGraphSteps
from bnexp.training.metrics import Meter, PlainSteps, Recorder, Steps
from bnexp.training.progress import Progress, Tally
from bnexp.training.schedule import Schedule

# How an optimizer launches its work, as a graph needs it or not: a checkpoint from elsewhere has no say.
DEVICE_KEYS = ("capturable", "fused")


@dataclass
class Trainer:
    """A network and all that a training step needs.

    ``forward`` is the network as it is called: itself, or its compiled form with the same weights.
    """

    model: nn.Module
    loss: nn.Module
    optimizer: torch.optim.Optimizer
    place: ComputeDevice
    schedule: Schedule = field(default_factory=Schedule)
    l1: float = 0.0
    grad_clip: float | None = None
    forward: nn.Module | None = None
    processes: Processes = SINGLE_PROCESS
    graph: CudaGraphSteps | None = None  # takes the steps where there is one

    def __post_init__(self) -> None:
        if self.forward is None:  # not "or": a compiled module has a length, and asks the network for it
            self.forward = self.model
        self.forward_with_all = self.processes.averaging(self.forward)
        self.scaler = self.place.scaler()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        # The L1 penalty is on weights: matrices and kernels, not biases and not a norm's scale.
        self.weights = [p for p in self.parameters if p.ndim > 1]
        self.update = unwrapped_step(self.optimizer)
        self.backward = unwrapped_backward if self.forward_with_all is self.model else Tensor.backward

    def step(self, images: Tensor, labels: Tensor, share: float = 1.0) -> tuple[Tensor, Tensor]:
        """One update from images (B, C, H, W) and labels (B,); the loss () and logits (B, K) before it.

        Where several processes work on a batch these are a ``share`` of it, and so is the loss: their sum
        over the processes is the batch's. Gradients stay in place until the next step, for whoever wants to
        look at them.
        """
        for parameter in self.parameters:
            parameter.grad = None
        with self.place.autocast():
            logits = self.forward_with_all(images)
            loss = self.loss(logits, labels)
        if self.processes.world > 1:
            loss = loss * share
            objective = loss * self.processes.world  # gradients are averaged, and shares have to be summed
        else:
            objective = loss
        if self.l1:
            objective = objective + self.l1 * self._l1_norm()
        if self.scaler is None:
            self.backward(objective)
            if self.grad_clip is not None:
                nn.utils.clip_grad_norm_(self.parameters, self.grad_clip)
            self.update()
        else:
            self._scaled_update(self.scaler, objective)
        return loss.detach(), logits.detach()

    def _scaled_update(self, scaler: torch.amp.GradScaler, objective: Tensor) -> None:
        scaler.scale(objective).backward()
        if self.grad_clip is not None:
            scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.parameters, self.grad_clip)
        scaler.step(self.optimizer)
        scaler.update()

    def _l1_norm(self) -> Tensor:
        return torch.stack([weight.abs().sum() for weight in self.weights]).sum()

    def train_epoch(
        self,
        batches: Batches,
        batch_size: int,
        *,
        seed: int,
        progress: Progress,
        window: int,
        recorder: Recorder,
        stop: StopSignal,
    ) -> dict[str, float] | None:
        """What is left of a pass over the training images in this epoch's order; raises Diverged.

        Returns train/loss and train/accuracy, means over the images as they were seen, in training mode,
        and images_per_s; None where a signal came first, with ``progress`` at the last whole step.
        """
        started, tally, epoch = time.perf_counter(), progress.tally, progress.epoch + 1
        self.model.train()
        mine, together = self.processes, self.processes.world > 1
        seed_global(seed, f"noise of {mine.rank}" if mine.rank else "noise", epoch)
        if mine.rank < len(tally.noise):
            set_global_rng_state(tally.noise[mine.rank], self.place.device)
        steps: Steps = self.graph or PlainSteps(mine)
        record = Meter(steps, mine)
        for size in steps.epoch(self.step, batches, batch_size, seed, epoch, tally.batches):
            record.add(size)
            self.schedule.after_step()
            progress.step += 1
            tally.batches += 1
            full = len(record) == window
            if full:
                record.drain(recorder, progress)
            # Several processes have to agree, which they do once a window: it costs a message.
            asked = self.asked_to_stop(stop) if full or not together else False
            if asked and tally.batches < batches.steps(batch_size):
                record.drain(recorder, progress)
                tally.noise = mine.gathered(global_rng_state(self.place.device))
                tally.train_s += time.perf_counter() - started
                return None
        record.drain(recorder, progress)
        train_s = tally.train_s + time.perf_counter() - started  # honest: the last read waited for the device
        progress.epoch, progress.tally = epoch, Tally()
        progress.train_s += train_s
        progress.images += len(batches)
        loss, accuracy = math.fsum(tally.losses) / len(batches), tally.correct / len(batches)
        return {"train/loss": loss, "train/accuracy": accuracy, "images_per_s": len(batches) / train_s}

    def asked_to_stop(self, stop: StopSignal) -> bool:
        """Whether a signal has come, to this process or to another one of the run."""
        return self.processes.any(stop.received is not None, self.place.device)

    def evaluate(self, batches: Batches, batch_size: int) -> dict[str, float]:
        """Mean loss and accuracy over all images of a split, in eval mode, each image weighing the same."""
        return self.classify(batches, batch_size)[0]

    @torch.inference_mode()
    def classify(self, batches: Batches, batch_size: int) -> tuple[dict[str, float], Tensor]:
        """The same, and the most likely class of each image (N,).

        Several processes take turns at the batches; the classes of the others' are -1.
        """
        self.model.eval()
        self.processes.copy_buffers(self.model)
        rank, world, count = self.processes.rank, self.processes.world, len(batches)
        # Made beforehand: results kept one by one between large batches would leave the heap full of holes.
        losses = torch.zeros(batches.steps(batch_size), device=self.place.device)
        found = torch.full((count,), -1, device=self.place.device)
        starts = range(0, count, batch_size)
        for step, (images, labels) in enumerate(batches.in_order(batch_size)):
            if step % world != rank:
                continue
            with self.place.autocast():
                logits = self.forward(images)  # type: ignore[misc]
                losses[step] = self.loss(logits, labels)
            torch.argmax(logits, 1, out=found[starts[step] : starts[step] + batch_size])
        hits = (found == batches.labels).sum()
        self.processes.sum_(losses)
        self.processes.sum_(hits)
        sizes = (min(batch_size, count - start) for start in starts)
        loss = math.fsum(value * size for value, size in zip(losses.tolist(), sizes, strict=True)) / count
        return {"loss": loss, "accuracy": int(hits) / count}, found

    def state(self, progress: Progress) -> dict[str, Any]:
        """All that a run needs to go on from here: randomness needs nothing, it is a function of the seed."""
        scheduler = self.schedule.scheduler
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": scheduler.state_dict() if scheduler is not None else None,
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "progress": progress.state(),
        }

    def restore(self, state: dict[str, Any]) -> Progress:
        """Takes up what ``state`` gave, from a checkpoint read to the CPU; returns how far that run had come.

        Raises UserError where network, optimizer or scheduler are no longer those of the checkpoint.
        """
        try:
            self.load_model(state)
            groups = state["optimizer"]["param_groups"]
            for saved, here in zip(groups, self.optimizer.param_groups, strict=True):
                saved |= {key: here[key] for key in DEVICE_KEYS if key in here}
            self.optimizer.load_state_dict(state["optimizer"])
            for parameter, kept in self.optimizer.state.items():
                kept |= {key: _match_memory_format(parameter, value) for key, value in kept.items()}
            if self.schedule.scheduler is not None:
                self.schedule.scheduler.load_state_dict(state["scheduler"])
            if self.scaler is not None:
                self.scaler.load_state_dict(state["scaler"])
            return Progress.restored(state["progress"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(one_line(f"the checkpoint does not fit this network ({error})"[:300])) from error

    def load_model(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])

    @property
    def lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])


def _match_memory_format(parameter: Tensor, value: Any) -> Any:
    """A momentum or the like in its parameter's memory format, which fused kernels want; else as it is."""
    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
