"""The console: one line per epoch, and a progress bar on a terminal."""

from __future__ import annotations

import logging
import sys

from torch import nn
from tqdm import tqdm

from bnexp.runs.loggers import NEW_RUN, Logger, RecordedProgress

log = logging.getLogger(__name__)


class ConsoleLogger(Logger):
    """One log line an epoch, and on a terminal a progress bar below the lines.

    A line has loss and accuracy of each split, learning rate and seconds: at most 79 columns.

    ``quiet`` is for runs that share a terminal: there is no bar, and only train.log gets the lines.
    """

    def __init__(
        self,
        epochs: int,
        steps: int,
        *,
        quiet: bool = False,
        progress: RecordedProgress = NEW_RUN,
        label: str = "",
    ) -> None:
        """``steps`` are those of one epoch. ``label`` begins each line where several runs write lines."""
        self.label = label
        self.epochs, self.level = epochs, logging.DEBUG if quiet else logging.INFO
        self.bar = tqdm(
            total=epochs * steps,
            initial=progress.step,
            unit="step",
            leave=False,
            dynamic_ncols=True,
            disable=quiet or not sys.stderr.isatty(),
        )

    def steps(self, first_step: int, losses: list[float]) -> None:
        self.bar.update(len(losses))
        self.bar.set_postfix_str(f"loss {losses[-1]:.4f}", refresh=False)

    def epoch(self, values: dict[str, float], epoch: int, model: nn.Module) -> None:
        parts = [self.label] if self.label else []
        parts += [f"epoch {epoch:>{len(str(self.epochs))}}/{self.epochs}"]
        for split in ("train", "val", "test"):
            if f"{split}/loss" in values:
                loss, accuracy = values[f"{split}/loss"], values[f"{split}/accuracy"]
                parts.append(f"{split} {loss:.4f} {accuracy:.2%}")
        parts.append(f"lr {values['lr']:.3g}")
        parts.append(f"{values['epoch_s']:.1f} s")
        with tqdm.external_write_mode():
            log.log(self.level, " | ".join(parts))

    def close(self) -> None:
        self.bar.close()
