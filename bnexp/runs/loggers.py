"""What the training loop reports to: the interface of a logger, and a group of loggers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from bnexp.files import name_write_errors


@dataclass(frozen=True)
class RecordedProgress:
    """What a resumed run has recorded up to its checkpoint: epochs, steps, and the tags of its metrics."""

    epoch: int = 0
    step: int = 0
    tags: frozenset[str] = frozenset()


NEW_RUN = RecordedProgress()


class Logger:
    """What the training loop reports to. A logger overrides the methods for what it records."""

    def text(self, tag: str, markdown: str) -> None: ...

    def steps(self, first_step: int, losses: list[float]) -> None:
        """The losses of consecutive steps. Steps count from 1 over the whole run."""

    def epoch(self, values: dict[str, float], epoch: int, model: nn.Module) -> None: ...

    def measurement(
        self, probe: str, index: Sequence[str], rows: Sequence[Mapping[str, float | str]], step: int
    ) -> None:
        """The rows that a probe measured at a step. ``index`` names the columns that identify a row."""

    def final(self, values: dict[str, float], epoch: int) -> None:
        """The metrics of a run that ended at ``epoch``, those of that epoch included."""

    def close(self) -> None: ...


class LoggerGroup(Logger):
    """Several loggers as one; all write into ``folder``. Raises WriteError if a write fails."""

    def __init__(self, loggers: list[Logger], folder: Path) -> None:
        self.loggers, self.folder = loggers, folder

    def text(self, tag: str, markdown: str) -> None:
        self._call(lambda logger: logger.text(tag, markdown))

    def steps(self, first_step: int, losses: list[float]) -> None:
        self._call(lambda logger: logger.steps(first_step, losses))

    def epoch(self, values: dict[str, float], epoch: int, model: nn.Module) -> None:
        self._call(lambda logger: logger.epoch(values, epoch, model))

    def measurement(
        self, probe: str, index: Sequence[str], rows: Sequence[Mapping[str, float | str]], step: int
    ) -> None:
        self._call(lambda logger: logger.measurement(probe, index, rows, step))

    def final(self, values: dict[str, float], epoch: int) -> None:
        self._call(lambda logger: logger.final(values, epoch))

    def close(self) -> None:
        with name_write_errors(self.folder), ExitStack() as stack:  # closes all, even if one fails
            for logger in self.loggers:
                stack.callback(logger.close)

    def _call(self, report: Callable[[Logger], None]) -> None:
        with name_write_errors(self.folder):
            for logger in self.loggers:
                report(logger)
