"""How far a run has come: what a checkpoint holds beside the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from bnexp.seeding import RandomState
from bnexp.training.metrics import Window


@dataclass
class EpochProgress:
    """An epoch that is under way."""

    steps: int = 0
    # One entry a step, times the images of its batch. Kept one by one and summed exactly at the end: the sum
    # then does not depend on where the epoch was interrupted.
    losses: list[float] = field(default_factory=list)
    correct: int = 0
    train_s: float = 0.0
    rng_states: list[RandomState] = field(default_factory=list)  # each process's, at an interruption


@dataclass
class Progress:
    """How far a run has come, and its best epoch by ``monitor`` (val/loss or val/accuracy)."""

    monitor: str = "val/accuracy"
    epoch: int = 0  # completed epochs
    step: int = 0  # completed steps, in all epochs
    train_s: float = 0.0
    images: int = 0
    epochs_since_best: int = 0
    longest_wait: int = 0  # the greatest epochs_since_best of all epochs before the last completed one
    best: dict[str, float] | None = None
    metrics: dict[str, float] = field(default_factory=dict)  # of the last completed epoch
    current: EpochProgress = field(default_factory=EpochProgress)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Progress:
        return cls(**state | {"current": EpochProgress(**state["current"])})

    def state(self) -> dict[str, Any]:
        """As plain values and tensors, for a checkpoint."""
        return vars(self) | {"current": dict(vars(self.current))}

    def is_done(self, epochs: int, patience: int | None) -> bool:
        """Whether ``epochs`` are completed, or the best one is ``patience`` epochs ago."""
        return self.epoch >= epochs or self.is_stale(patience)

    def is_stale(self, patience: int | None) -> bool:
        """Whether the best epoch is ``patience`` epochs ago: early stopping ends the run."""
        return patience is not None and self.epochs_since_best >= patience

    def has_waited(self, patience: int | None) -> bool:
        """Whether it has trained beyond the epoch at which early stopping with ``patience`` would end."""
        wait = max(self.longest_wait, self.epochs_since_best if self.current.steps else 0)
        return patience is not None and wait >= patience

    def count_step(self) -> None:
        self.step += 1
        self.current.steps += 1

    def add_window(self, window: Window) -> None:
        losses = zip(window.losses, window.batch_sizes, strict=True)
        self.current.losses += [loss * size for loss, size in losses]
        self.current.correct += window.correct

    def interrupt_epoch(self, seconds: float, rng_states: list[RandomState]) -> None:
        """Adds the ``seconds`` since the epoch began or was resumed, and keeps the generator states."""
        self.current.train_s += seconds
        self.current.rng_states = rng_states

    def finish_epoch(self, images: int, seconds: float) -> dict[str, float]:
        """Counts the current epoch as completed.

        Returns train/loss and train/accuracy, means over its ``images`` in training mode, and images_per_s.
        """
        losses, correct, seconds = self.current.losses, self.current.correct, self.current.train_s + seconds
        self.epoch += 1
        self.train_s += seconds
        self.images += images
        self.current = EpochProgress()
        return {
            "train/loss": math.fsum(losses) / images,
            "train/accuracy": correct / images,
            "images_per_s": images / seconds,
        }

    def record(self, metrics: dict[str, float]) -> bool:
        """Takes the metrics of the completed epoch; returns whether it is the best one so far.

        Without a validation set there is no best epoch, and an epoch whose value is nan is never the best.
        """
        self.metrics = metrics
        value = metrics.get(self.monitor)
        if value is None or math.isnan(value):
            return False
        sign = -1.0 if self.monitor.endswith("loss") else 1.0
        self.longest_wait = max(self.longest_wait, self.epochs_since_best)
        is_best = self.best is None or sign * value > sign * self.best[self.monitor]
        self.epochs_since_best = 0 if is_best else self.epochs_since_best + 1
        if is_best:
            val = {name: value for name, value in metrics.items() if name.startswith("val/")}
            self.best = {"epoch": self.epoch} | val
        return is_best

    def times(self) -> dict[str, float]:
        """Seconds of training and images per second so far, for summary.json."""
        rate = self.images / self.train_s if self.train_s else 0.0
        return {"train_s": round(self.train_s, 4), "images_per_s": round(rate, 1)}
