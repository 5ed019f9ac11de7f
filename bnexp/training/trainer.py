"""One training step, and the evaluation of a network."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bnexp.compute.device import ComputeDevice
from bnexp.compute.processes import SINGLE_PROCESS, Processes
from bnexp.compute.torch_overhead import unwrapped_backward, unwrapped_step
from bnexp.data import Batch, Split
from bnexp.errors import UserError, end_forked_process, one_line
from bnexp.seeding import RandomState, seed_global, set_global_rng_state
from bnexp.training.loss_mean import image_weights, weighs_images
from bnexp.training.metrics import StepOutput
from bnexp.training.progress import Progress
from bnexp.training.schedule import Schedule

# These say how an optimizer launches its kernels on this device. ``restore`` ignores their saved values.
DEVICE_KEYS = ("capturable", "fused")


class Trainer:
    """A network and everything that a training step needs.

    ``compiled`` is the network's compiled form, which shares its weights. ``l1`` is the factor of the L1
    penalty, ``grad_clip`` the largest norm of the gradient.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: ComputeDevice,
        *,
        schedule: Schedule | None = None,
        l1: float = 0.0,
        grad_clip: float | None = None,
        compiled: nn.Module | None = None,
        processes: Processes = SINGLE_PROCESS,
        scaler: torch.amp.GradScaler | None = None,
        seed: int = 0,
    ) -> None:
        self.seed, self.process = seed, os.getpid()
        self.default_dtype = torch.get_default_dtype()  # a step of the user's own network may change it
        self.model, self.loss, self.optimizer, self.device = model, loss, optimizer, device
        self.schedule = schedule or Schedule()
        self.l1, self.grad_clip, self.processes = l1, grad_clip, processes
        self.scaler = device.scaler() if scaler is None else scaler
        self.eval_network = (
            model if compiled is None else compiled
        )  # "or" would call a compiled module's len()
        self.training_network = processes.wrap_ddp(self.eval_network)
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        # The L1 penalty is on matrices and kernels, not on biases nor on the scale of a norm.
        self.l1_weights = [parameter for parameter in self.parameters if parameter.ndim > 1]
        self.optimizer_step = unwrapped_step(optimizer)
        # A compiled or distributed network needs the wrappers of Tensor.backward.
        self.backward = unwrapped_backward if self.training_network is model else Tensor.backward

    def train(self) -> None:
        """Network and loss in training mode."""
        self.model.train()
        self.loss.train()

    def eval(self) -> None:
        self.model.eval()
        self.loss.eval()

    def begin_epoch(self, seed: int, epoch: int, rng_states: list[RandomState]) -> None:
        """Training mode, and the global generators as they are in this epoch.

        ``rng_states`` holds each process's states at an interruption; it is empty for a new epoch.
        """
        self.train()
        rank = self.processes.rank
        seed_global(seed, f"noise of {rank}" if rank else "noise", epoch)
        if rank < len(rng_states):
            set_global_rng_state(rng_states[rank], self.device.torch_device)

    def step(self, batch: Batch) -> StepOutput:
        """One update from a batch; of several processes each takes its own shard."""
        images, labels = self.processes.shard(*batch.tensors())
        loss, logits = self.update(images, labels, len(labels) / batch.size)
        end_forked_process(self.process)
        return StepOutput(loss, logits, labels, batch.size)

    def update(self, images: Tensor, labels: Tensor, share: float = 1.0) -> tuple[Tensor, Tensor]:
        """One update from images (B, C, H, W) and labels (B,); its loss () and logits (B, K).

        ``share`` is the number of these images over that of the whole batch. The loss is multiplied by it:
        the sum over all processes is the loss of the batch. The gradients stay until the next update, for the
        loggers.
        """
        for parameter in self.parameters:
            parameter.grad = None
        with self.device.autocast():
            logits = self.training_network(images)
            loss = self.loss(logits, labels)
        if self.processes.is_distributed:
            loss = loss * share
            objective = loss * self.processes.world_size  # DDP averages gradients; shares must be summed
        else:
            objective = loss
        if self.l1:
            objective = objective + self.l1 * self._l1_norm()
        if self.scaler is None:
            self.backward(objective)
            if self.grad_clip is not None:
                nn.utils.clip_grad_norm_(self.parameters, self.grad_clip)
            self.optimizer_step()
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
        return torch.stack([weight.abs().sum() for weight in self.l1_weights]).sum()

    @property
    def lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def evaluate(self, splits: Mapping[str, Split], batch_size: int) -> dict[str, float]:
        """``SPLIT/loss`` and ``SPLIT/accuracy`` of each split in eval mode; every image weighs the same."""
        metrics: dict[str, float] = {}
        for split, batches in splits.items():
            loss, accuracy, _ = self.classify(batches, batch_size)
            metrics |= {f"{split}/loss": loss, f"{split}/accuracy": accuracy}
        return metrics

    @torch.inference_mode()
    def classify(self, batches: Split, batch_size: int) -> tuple[float, float, Tensor]:
        """Mean loss, accuracy, and the class (N,) that the network gives to each image of a split.

        The mean has the loss's own weights of the images, if it has any.

        Several processes take turns at the batches; the images of other processes have class -1.
        """
        self.eval()
        seed_global(self.seed, "evaluation")  # a network may draw in eval mode too; bnexp-eval repeats it
        self.processes.copy_buffers(self.model)
        rank, world_size, count = self.processes.rank, self.processes.world_size, len(batches)
        device = self.device.torch_device
        # Allocated once: many small tensors between large batches fragment the heap.
        losses = torch.zeros(batches.steps(batch_size), device=device)
        weights = torch.zeros_like(losses) if weighs_images(self.loss) else None
        classes = torch.full((count,), -1, device=device)
        starts = range(0, count, batch_size)
        for step, (images, labels) in enumerate(batches.in_order(batch_size)):
            if step % world_size != rank:
                continue
            with self.device.autocast():
                logits = self.eval_network(images)
                losses[step] = self.loss(logits, labels)
            end_forked_process(self.process)
            if weights is not None:
                weights[step] = image_weights(self.loss, labels).sum()
            torch.argmax(logits, 1, out=classes[starts[step] : starts[step] + batch_size])
        correct = self.processes.sum_((classes == batches.labels).sum())
        self.processes.sum_(losses)
        sizes = [float(min(batch_size, count - start)) for start in starts]
        if weights is not None:
            sizes = self.processes.sum_(weights).tolist()
        loss_sum = math.fsum(loss * size for loss, size in zip(losses.tolist(), sizes, strict=True) if size)
        return loss_sum / math.fsum(sizes), int(correct) / count, classes

    def state(self, progress: Progress) -> dict[str, Any]:
        """Everything that a run needs to continue.

        Randomness is a function of the seed. Only an interrupted epoch keeps generator states, in its
        progress.
        """
        scheduler = self.schedule.scheduler
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": scheduler.state_dict() if scheduler is not None else None,
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "progress": progress.state(),
        }

    def restore(self, state: dict[str, Any]) -> Progress:
        """Restores what ``state`` returned, read to the CPU; returns how far that run had come.

        Raises UserError if network, optimizer or scheduler are not those of the checkpoint.
        """
        try:
            self.load_model(state)
            saved_groups = state["optimizer"]["param_groups"]
            for saved, group in zip(saved_groups, self.optimizer.param_groups, strict=True):
                saved |= {key: group[key] for key in DEVICE_KEYS if key in group}
            self.optimizer.load_state_dict(state["optimizer"])
            for parameter, buffers in self.optimizer.state.items():
                buffers |= {key: _match_memory_format(parameter, value) for key, value in buffers.items()}
            if self.schedule.scheduler is not None:
                self.schedule.scheduler.load_state_dict(state["scheduler"])
            if self.scaler is not None:
                self.scaler.load_state_dict(state["scaler"])
            return Progress.from_state(state["progress"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(one_line(f"the checkpoint does not fit this network ({error})"[:300])) from error

    def load_model(self, state: dict[str, Any]) -> None:
        """Loads the weights of a checkpoint."""
        self.model.load_state_dict(state["model"])


def _match_memory_format(parameter: Tensor, value: Any) -> Any:
    """A momentum or the like in its parameter's memory format, which fused kernels need; others unchanged."""
    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
