"""Loggers: the console with its bar, metrics.csv and steps.csv, TensorBoard."""

from __future__ import annotations

import csv
import io
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from torch import nn
from tqdm import tqdm

from bnexp.files import name_write_errors, write_atomically
from bnexp.runs.event_files import STEP_LOSS, truncate_events

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)
METRICS = tuple(f"{split}/{name}" for split in ("train", "val", "test") for name in ("loss", "accuracy"))
# The Custom Scalars tab: what belongs together in one chart, for all the runs that are chosen.
LAYOUT = {
    "bnexp": {
        "accuracy": ["Multiline", ["train/accuracy", "val/accuracy", "test/accuracy"]],
        "loss": ["Multiline", ["train/loss", "val/loss", "test/loss"]],
        "train_eval, test": ["Multiline", ["train_eval/accuracy", "test/accuracy"]],
        "learning rate": ["Multiline", ["lr"]],
    }
}
COLUMNS = (*METRICS, "lr", "images_per_s", "epoch_s")


@dataclass(frozen=True)
class RecordedProgress:
    """What a run that goes on has on record: so many epochs and steps, under these tags."""

    epoch: int = 0
    step: int = 0
    tags: frozenset[str] = frozenset()


NOTHING_RECORDED = RecordedProgress()


class Logger:
    """What the loop reports to; each logger overrides what it cares for."""

    def text(self, tag: str, markdown: str) -> None: ...
    def steps(self, first_step: int, losses: list[float]) -> None: ...
    def epoch(self, values: dict[str, float], epoch: int, model: nn.Module) -> None: ...
    def final(self, values: dict[str, float], epoch: int) -> None:
        """The metrics of a run that came to its end at ``epoch``, those of that epoch among them."""

    def close(self) -> None: ...


class LoggerGroup(Logger):
    """Several loggers as one, which write into ``folder``; raises WriteError where that fails."""

    def __init__(self, loggers: list[Logger], folder: Path) -> None:
        self.loggers, self.folder = loggers, folder

    def text(self, tag: str, markdown: str) -> None:
        with name_write_errors(self.folder):
            for logger in self.loggers:
                logger.text(tag, markdown)

    def steps(self, first_step: int, losses: list[float]) -> None:
        with name_write_errors(self.folder):
            for logger in self.loggers:
                logger.steps(first_step, losses)

    def epoch(self, values: dict[str, float], epoch: int, model: nn.Module) -> None:
        with name_write_errors(self.folder):
            for logger in self.loggers:
                logger.epoch(values, epoch, model)

    def final(self, values: dict[str, float], epoch: int) -> None:
        with name_write_errors(self.folder):
            for logger in self.loggers:
                logger.final(values, epoch)

    def close(self) -> None:
        with name_write_errors(self.folder), ExitStack() as stack:
            for logger in self.loggers:
                stack.callback(logger.close)


class ConsoleLogger(Logger):
    """A line an epoch through the log, under a bar that shows where the run is (on a terminal only).

    ``quiet``, for runs side by side, leaves the lines to train.log.
    """

    def __init__(
        self, epochs: int, steps: int, *, quiet: bool = False, recorded: RecordedProgress = NOTHING_RECORDED
    ) -> None:
        self.epochs, self.level = epochs, logging.DEBUG if quiet else logging.INFO
        hidden = quiet or not sys.stderr.isatty()
        self.bar = tqdm(
            total=epochs * steps,
            initial=recorded.step,
            unit="step",
            leave=False,
            dynamic_ncols=True,
            disable=hidden,
        )

    def steps(self, first_step: int, losses: list[float]) -> None:
        self.bar.update(len(losses))
        self.bar.set_postfix_str(f"loss {losses[-1]:.4f}", refresh=False)

    def epoch(self, values: dict[str, float], epoch: int, model: nn.Module) -> None:
        parts = [f"epoch {epoch:>{len(str(self.epochs))}}/{self.epochs}"]
        for split in ("train", "val", "test"):
            if f"{split}/loss" in values:
                loss, accuracy = values[f"{split}/loss"], values[f"{split}/accuracy"]
                parts.append(f"{split} loss {loss:.4f} acc {accuracy:.4f}")
        parts.append(f"lr {values['lr']:.3g}")
        parts.append(f"{values['images_per_s']:,.0f} images/s")
        parts.append(f"{values['epoch_s']:.2f} s")
        with tqdm.external_write_mode():
            log.log(self.level, " | ".join(parts))

    def close(self) -> None:
        self.bar.close()


class CsvLogger(Logger):
    """metrics.csv, a row an epoch, and steps.csv, a row a step; both on the disk at the end of every epoch.

    Rows beyond what is ``recorded`` are dropped from files that are there already.
    """

    def __init__(self, folder: Path, recorded: RecordedProgress = NOTHING_RECORDED) -> None:
        self.metrics = _open_truncated(recorded.epoch, folder / "metrics.csv", ",".join(["epoch", *COLUMNS]))
        self.losses = _open_truncated(recorded.step, folder / "steps.csv", "step,train/loss")

    def steps(self, first_step: int, losses: list[float]) -> None:
        rows = io.StringIO()
        csv.writer(rows).writerows(enumerate(losses, first_step))
        self.losses.write(rows.getvalue())

    def epoch(self, values: dict[str, float], epoch: int, model: nn.Module) -> None:
        csv.writer(self.metrics).writerow([epoch, *(values.get(name, "") for name in COLUMNS)])
        for file in (self.losses, self.metrics):
            file.flush()
            os.fsync(file.fileno())

    def close(self) -> None:
        self.metrics.close()
        self.losses.close()


def _open_truncated(last: int, path: Path, header: str) -> TextIO:
    """The file open for more rows, with those to number ``last`` in it: a killed attempt leaves more."""
    lines = path.read_text().split("\n") if last and path.exists() else []
    rows = [line.strip() for line in lines[1:-1]]  # the last has no end of line: torn, or empty
    kept = [row for row in rows if row.partition(",")[0].isdigit() and int(row.partition(",")[0]) <= last]
    if len(kept) != last:
        log.warning(f"{path}: has {len(kept)} of the first {last} rows; the others are lost")
    text = "".join(f"{row}\r\n" for row in [header, *kept])
    write_atomically(path, lambda file: file.write(text.encode()))
    return path.open("a", newline="")


class TensorBoardLogger(Logger):
    """Scalars by epoch under the same tags in every run, so that runs overlay.

    ``hparams`` are what the HParams tab shows of the run beside its final metrics. Events beyond what is
    ``recorded`` are taken out of the files that are there already.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every: int,
        histograms: bool,
        hparams: Mapping[str, float | str],
        recorded: RecordedProgress = NOTHING_RECORDED,
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        tags = {*recorded.tags, "epoch_s", STEP_LOSS}
        truncate_events(folder, epoch=recorded.epoch, step=recorded.step, tags=tags)
        self.writer: SummaryWriter = SummaryWriter(str(folder))
        self.every, self.histograms, self.hparams = every, histograms, dict(hparams)
        self._tags = set(recorded.tags)
        self.writer.add_custom_scalars(LAYOUT)

    def text(self, tag: str, markdown: str) -> None:
        self.writer.add_text(tag, markdown, 0)

    def steps(self, first_step: int, losses: list[float]) -> None:
        for step, loss in enumerate(losses, first_step):
            if step % self.every == 0:
                self.writer.add_scalar(STEP_LOSS, loss, step)

    def epoch(self, values: dict[str, float], epoch: int, model: nn.Module) -> None:
        for tag, value in values.items():
            self.writer.add_scalar(tag, value, epoch)
        self._tags |= values.keys()
        if self.histograms:
            self._histograms(model, epoch)
        self.writer.flush()

    def final(self, values: dict[str, float], epoch: int) -> None:
        for tag in values.keys() - self._tags:
            self.writer.add_scalar(tag, values[tag], epoch)
        if self.hparams:
            from torch.utils.tensorboard.summary import hparams

            # SummaryWriter.add_hparams would open a second file, in a run of its own: these go into ours.
            for summary in hparams(self.hparams, values):
                self.writer._get_file_writer().add_summary(summary)

    def _histograms(self, model: nn.Module, epoch: int) -> None:
        for name, parameter in model.named_parameters():
            self.writer.add_histogram(f"weights/{name}", parameter.detach().float().cpu(), epoch)
            if parameter.grad is not None:
                self.writer.add_histogram(f"gradients/{name}", parameter.grad.float().cpu(), epoch)
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point():
                self.writer.add_histogram(f"running/{name}", buffer.float().cpu(), epoch)

    def close(self) -> None:
        self.writer.close()
