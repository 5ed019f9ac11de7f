"""The step, the epoch, the evaluation, and the loop over them.

A step never waits for the device: losses and logits stay there and are read together once in a window of
steps. What is recorded, where it is saved, when to stop: handed in as built objects.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from bnexp.checkpoint import Checkpoints
from bnexp.data import Batches
from bnexp.device import Place
from bnexp.eager import plain_backward, plain_step
from bnexp.errors import UserError, one_line
from bnexp.graphs import GraphedSteps
from bnexp.processes import ALONE, Processes
from bnexp.progress import Progress, Tally
from bnexp.seeding import noise_state, seed_global, set_noise_state
from bnexp.steps import PlainSteps, Recorder, Steps, Window
from bnexp.stop import StopSignal

# How an optimizer launches its work, as a graph needs it or not: a checkpoint from elsewhere has no say.
OF_THIS_DEVICE = ("capturable", "fused")


@dataclass
class Schedule:
    """A torch scheduler and when it moves: after each step or after each epoch, on a metric or on its own."""

    scheduler: LRScheduler | None = None
    interval: str = "epoch"
    monitor: str | None = None

    def after_step(self) -> None:
        if self.scheduler is not None and self.interval == "step":
            self.scheduler.step()

    def after_epoch(self, metrics: dict[str, float]) -> None:
        if self.scheduler is None or self.interval != "epoch":
            return
        if isinstance(self.scheduler, ReduceLROnPlateau) or self.monitor is not None:
            self.scheduler.step(metrics[self.monitor or "val/loss"])  # type: ignore[arg-type]
        else:
            self.scheduler.step()


@dataclass
class Trainer:
    """A network and all that a training step needs.

    ``forward`` is the network as it is called: itself, or its compiled form with the same weights.
    """

    model: nn.Module
    loss: nn.Module
    optimizer: torch.optim.Optimizer
    place: Place
    schedule: Schedule = field(default_factory=Schedule)
    l1: float = 0.0
    grad_clip: float | None = None
    forward: nn.Module | None = None
    processes: Processes = ALONE
    graph: GraphedSteps | None = None  # takes the steps where there is one

    def __post_init__(self) -> None:
        if self.forward is None:  # not "or": a compiled module has a length, and asks the network for it
            self.forward = self.model
        self.forward_with_all = self.processes.averaging(self.forward)
        self.scaler = self.place.scaler()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        # The L1 penalty is on weights: matrices and kernels, not biases and not a norm's scale.
        self.weights = [p for p in self.parameters if p.ndim > 1]
        self.update = plain_step(self.optimizer)
        self.backward = plain_backward if self.forward_with_all is self.model else Tensor.backward

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
            set_noise_state(tally.noise[mine.rank], self.place.device)
        steps: Steps = self.graph or PlainSteps(mine)
        record = Window(steps, mine)
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
                tally.noise = mine.gathered(noise_state(self.place.device))
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
                saved |= {key: here[key] for key in OF_THIS_DEVICE if key in here}
            self.optimizer.load_state_dict(state["optimizer"])
            for parameter, kept in self.optimizer.state.items():
                kept |= {key: _laid_out_as(parameter, value) for key, value in kept.items()}
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


def _laid_out_as(parameter: Tensor, value: Any) -> Any:
    """A momentum or the like in its parameter's memory format, which fused kernels want; else as it is."""
    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def fit(
    trainer: Trainer,
    train: Batches,
    watched: dict[str, Batches],
    *,
    epochs: int,
    batch_size: int,
    eval_batch_size: int,
    seed: int,
    patience: int | None,
    window: int,
    progress: Progress,
    checkpoints: Checkpoints,
    recorder: Recorder,
    stop: StopSignal,
) -> dict[str, float]:
    """Trains from where ``progress`` is to ``epochs``; ``watched`` splits are evaluated after each one.

    Only a split named val ever chooses: the best epoch, a plateau, an early stop. An epoch is recorded
    before it is saved, so that no checkpoint is ahead of its record. Returns the last epoch's metrics, by
    TensorBoard tag. Raises Interrupted after a signal, with the last step saved.
    """

    def over() -> bool:
        return progress.epoch >= epochs or (patience is not None and progress.stale >= patience)

    while not over():
        started = time.perf_counter()
        metrics = None
        if not trainer.asked_to_stop(stop):
            metrics = trainer.train_epoch(
                train, batch_size, seed=seed, progress=progress, window=window, recorder=recorder, stop=stop
            )
        if metrics is None:
            checkpoints.save_last(trainer.state(progress))
            raise stop.interrupted()
        for split, batches in watched.items():
            found = trainer.evaluate(batches, eval_batch_size)
            metrics |= {f"{split}/{name}": value for name, value in found.items()}
        metrics["lr"] = trainer.lr
        trainer.schedule.after_epoch(metrics)
        best = progress.judge(metrics)
        progress.metrics = metrics
        recorder.epoch(metrics | {"epoch_s": time.perf_counter() - started}, progress.epoch, trainer.model)
        checkpoints.save(trainer.state(progress), progress.epoch, best=best, final=over())
    return progress.metrics


def conclude(
    trainer: Trainer,
    train: Batches,
    test: Batches,
    metrics: dict[str, float],
    *,
    batch_size: int,
    progress: Progress,
    best_weights: Callable[[], dict[str, Any]],
) -> tuple[dict[str, float], dict[str, float] | None]:
    """The final metrics, and those of the best epoch by val with the test set at its weights.

    train/* of the last epoch are means in training mode while the weights moved; train_eval/* are the
    final weights in eval mode, the only ones to hold against val/* and test/*. The test set is looked at
    here, after everything has been chosen.
    """
    final = dict(metrics)
    for name, batches in (("train_eval", train), ("test", test)):
        if f"{name}/loss" not in final:
            found = trainer.evaluate(batches, batch_size)
            final |= {f"{name}/{key}": value for key, value in found.items()}
    best = None
    if progress.best is not None:
        best = dict(progress.best)
        if best["epoch"] == progress.epoch:
            found = {key: final[f"test/{key}"] for key in ("loss", "accuracy")}
        else:
            trainer.load_model(best_weights())
            found = trainer.evaluate(test, batch_size)
        best |= {f"test/{key}": value for key, value in found.items()}
    return {key: value for key, value in final.items() if "/" in key}, best
