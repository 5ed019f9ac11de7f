"""One training step of R networks, and their evaluation."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnexp.compute.device import ComputeDevice
from bnexp.data.fused_batches import FusedSplit
from bnexp.training.fused.layers import fuse, join_states, split_state
from bnexp.training.loss_mean import image_weights, weighs_images
from bnexp.training.losses import OneHotMSE
from bnexp.training.metrics import Meter, Window
from bnexp.training.progress import Progress
from bnexp.training.schedule import Schedule
from bnexp.training.trainer import Trainer


class Classification(NamedTuple):
    """The evaluation of one replica on a split: means, and the class (N,) of each image."""

    loss: float
    accuracy: float
    classes: Tensor


class FusedLoss(nn.Module):
    """The loss of each replica, as the single ``loss`` has it: a mean over the replica's own images."""

    def __init__(self, loss: nn.Module, replicas: int) -> None:
        super().__init__()
        self.replicas = replicas
        self.loss = copy.deepcopy(loss)
        if not isinstance(loss, OneHotMSE):
            self.loss.reduction = "none"  # type: ignore[assignment]

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (N, R·K) and classes (N, R) -> losses (R,)."""
        rows, classes = logits.reshape(labels.numel(), -1), labels.reshape(-1)  # (N·R, K), (N·R,)
        if isinstance(self.loss, OneHotMSE):
            one_hot = torch.zeros_like(rows).scatter_(1, classes.unsqueeze(1), 1.0)
            values = F.mse_loss(rows, one_hot, reduction="none").mean(1)
        else:
            values = self.loss(rows, classes)
        if weighs_images(self.loss):
            return values.view(labels.shape).sum(0) / self.weights(labels)
        return values.view(labels.shape).mean(0)

    def weights(self, labels: Tensor) -> Tensor:
        """The sum (R,) of the weights that the images of classes (N, R) have in each replica's mean."""
        return image_weights(self.loss, labels.reshape(-1)).view(labels.shape).sum(0)


class FusedMeter(Meter):
    """Collects the steps of R replicas; they are read together."""

    def read_all(self) -> list[Window]:
        """The window of each replica; the meter is empty afterwards. Waits for the device."""
        losses, predictions, labels, batch_sizes = zip(*self.outputs, strict=True)
        self.outputs = []
        correct = (torch.cat(predictions).argmax(2) == torch.cat(labels)).sum(0).tolist()  # (R,)
        step_losses = torch.stack(losses, 1).tolist()  # (R, steps)
        return [Window(step_losses[r], list(batch_sizes), count) for r, count in enumerate(correct)]


class FusedTrainer(Trainer):
    """R networks and everything that their common step needs.

    ``networks`` have the same architecture; the fused network starts from their weights. The optimizer works
    element by element, so each replica is updated as if it were alone. Clipping is each replica's own.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        model: nn.Module,
        loss: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: ComputeDevice,
        *,
        schedule: Schedule,
        l1: float,
        grad_clip: float | None,
    ) -> None:
        self.replicas = len(networks)
        self.template = copy.deepcopy(networks[0])  # holds the weights of one replica for the loggers
        self.fused_loss = FusedLoss(loss, self.replicas)
        super().__init__(
            model, self.fused_loss, optimizer, device, schedule=schedule, l1=l1, grad_clip=grad_clip
        )

    def update(self, images: Tensor, labels: Tensor, share: float = 1.0) -> tuple[Tensor, Tensor]:
        """One update from images (B, R·C, H, W) and labels (B, R); its losses (R,) and logits (B, R, K)."""
        for parameter in self.parameters:
            parameter.grad = None
        logits = self.model(images)
        losses = self.loss(logits, labels)
        objective = losses.sum()  # each replica's gradient comes from its own loss alone
        if self.l1:
            objective = objective + self.l1 * self._l1_norm()
        self.backward(objective)
        if self.grad_clip is not None:
            self._clip_gradients(self.grad_clip)
        self.optimizer_step()
        return losses.detach(), logits.detach().unflatten(1, (self.replicas, -1))

    @torch.no_grad()
    def _clip_gradients(self, max_norm: float) -> None:
        """As nn.utils.clip_grad_norm_, with the norm of each replica's gradients."""
        parts = [p.grad.unflatten(0, (self.replicas, -1)) for p in self.parameters if p.grad is not None]
        norms = [torch.linalg.vector_norm(part, dim=list(range(1, part.dim()))) for part in parts]
        total_norm = torch.linalg.vector_norm(torch.stack(norms), dim=0)  # (R,)
        factors = (max_norm / (total_norm + 1e-6)).clamp(max=1.0)
        for part in parts:
            part.mul_(factors.view(-1, *[1] * (part.dim() - 1)))

    def evaluate_all(self, splits: Mapping[str, FusedSplit], batch_size: int) -> list[dict[str, float]]:
        """``SPLIT/loss`` and ``SPLIT/accuracy`` of each split in eval mode, for each replica."""
        metrics: list[dict[str, float]] = [{} for _ in range(self.replicas)]
        for name, split in splits.items():
            for values, result in zip(metrics, self.classify_all(split, batch_size), strict=True):
                values |= {f"{name}/loss": result.loss, f"{name}/accuracy": result.accuracy}
        return metrics

    @torch.inference_mode()
    def classify_all(self, split: FusedSplit, batch_size: int) -> list[Classification]:
        """The evaluation of each replica, with ``batch_size`` images of all replicas together at a time.

        So it needs the memory of a single network's evaluation.
        """
        self.model.eval()
        batch_size = max(1, batch_size // self.replicas)
        losses, weights, classes = [], [], []
        for images, labels in split.in_order(batch_size):
            logits = self.model(images)
            losses.append(self.loss(logits, labels))
            weights.append(self.fused_loss.weights(labels))
            classes.append(logits.unflatten(1, (self.replicas, -1)).argmax(2))  # (B, R)
        batch_losses, batch_weights = torch.stack(losses, 1).tolist(), torch.stack(weights, 1).tolist()
        predictions = torch.cat(classes)  # (N, R)
        correct = (predictions == split.labels).sum(0).tolist()
        results = []
        for replica in range(self.replicas):
            pairs = zip(batch_losses[replica], batch_weights[replica], strict=True)
            loss_sum = math.fsum(loss * weight for loss, weight in pairs if weight)
            loss = loss_sum / math.fsum(batch_weights[replica])
            results.append(Classification(loss, correct[replica] / len(split), predictions[:, replica]))
        return results

    def states(self, progresses: Sequence[Progress]) -> list[dict[str, Any]]:
        """What each replica needs to continue, alone or with others: as ``Trainer.state`` of a single run."""
        fused = self.state(progresses[0])
        return [
            fused
            | {
                "model": split_state(fused["model"], self.replicas, replica),
                "optimizer": fused["optimizer"]
                | {
                    "state": {
                        number: split_state(buffers, self.replicas, replica)
                        for number, buffers in fused["optimizer"]["state"].items()
                    }
                },
                "progress": progress.state(),
            }
            for replica, progress in enumerate(progresses)
        ]

    def restore_all(self, states: Sequence[dict[str, Any]]) -> None:
        """Restores the states of R runs that stand at the same step. Raises UserError as ``restore``."""
        optimizers = [state["optimizer"] for state in states]
        buffers = {
            number: join_states([optimizer["state"][number] for optimizer in optimizers])
            for number in optimizers[0]["state"]
        }
        groups = [dict(group) for group in optimizers[0]["param_groups"]]
        self.restore(
            states[0]
            | {
                "model": join_states([state["model"] for state in states]),
                "optimizer": {"state": buffers, "param_groups": groups},
            }
        )

    def load_models(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Loads the weights of R checkpoints."""
        self.model.load_state_dict(join_states([state["model"] for state in states]))

    def network(self, replica: int) -> nn.Module:
        """A network with the weights and gradients of one replica, until the next call."""
        self.template.load_state_dict(split_state(self.model.state_dict(), self.replicas, replica))
        for parameter, joined in zip(self.template.parameters(), self.model.parameters(), strict=True):
            parameter.grad = None if joined.grad is None else joined.grad.chunk(self.replicas)[replica]
        return self.template


def memory_format(network: nn.Module) -> torch.memory_format:
    """channels_last for convolutions.

    On a CPU the grouped convolution of R networks is faster than theirs only then: 8 of MNIST's convolutional
    nets with batch norm took 18,300 images/s on one thread, one alone 14,200, and 8 without it 11,500.
    """
    has_convolutions = any(isinstance(module, nn.Conv2d) for module in network.modules())
    return torch.channels_last if has_convolutions else torch.contiguous_format


def fuse_on_device(networks: Sequence[nn.Module], device: ComputeDevice) -> nn.Module:
    """The fused network on its device, in the memory format that suits it. Raises NotFusable."""
    fused = fuse(networks)
    return fused.to(device.torch_device, memory_format=memory_format(fused))  # type: ignore[call-overload]
