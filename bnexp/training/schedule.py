"""When the learning rate changes."""

from __future__ import annotations

from dataclasses import dataclass

from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau


@dataclass(frozen=True)
class Schedule:
    """A torch scheduler and when it is called.

    ``interval`` is ``step`` or ``epoch``. ``monitor`` is the metric that a scheduler such as
    ReduceLROnPlateau looks at after each epoch.
    """

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
