"""How far a run has come: what a checkpoint holds beside the weights, and what judges an epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass
class Tally:
    """An epoch under way. Its losses are kept one by one: their sum then does not depend on a cut between."""

    batches: int = 0
    losses: list[float] = field(default_factory=list)  # each times the images of its batch
    correct: int = 0
    train_s: float = 0.0
    noise: list[list[Tensor]] = field(default_factory=list)  # each process's generators where it was cut


@dataclass
class Progress:
    """How far a run has come, and the best epoch so far by what it monitors."""

    monitor: str = "val/accuracy"
    epoch: int = 0  # whole epochs
    step: int = 0
    train_s: float = 0.0
    images: int = 0
    stale: int = 0  # epochs since the best one
    best: dict[str, float] | None = None
    metrics: dict[str, float] = field(default_factory=dict)  # of the last whole epoch
    tally: Tally = field(default_factory=Tally)  # of the one under way

    @classmethod
    def restored(cls, state: dict[str, Any]) -> Progress:
        return cls(**state | {"tally": Tally(**state["tally"])})

    def state(self) -> dict[str, Any]:
        return vars(self) | {"tally": dict(vars(self.tally))}

    def times(self) -> dict[str, float]:
        rate = self.images / self.train_s if self.train_s else 0.0
        return {"train_s": round(self.train_s, 4), "images_per_s": round(rate, 1)}

    def judge(self, metrics: dict[str, float]) -> bool:
        """Whether these are the best metrics yet; without a validation set no epoch is."""
        value = metrics.get(self.monitor)
        if value is None:
            return False
        sign = -1.0 if self.monitor.endswith("loss") else 1.0
        better = self.best is None or sign * value > sign * self.best[self.monitor]
        self.stale = 0 if better else self.stale + 1
        if better:
            self.best = {"epoch": self.epoch} | {k: v for k, v in metrics.items() if k.startswith("val/")}
        return better
