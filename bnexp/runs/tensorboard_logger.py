"""TensorBoard: scalars, step losses, histograms, texts and hyperparameters of a run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from bnexp.runs.event_files import PROBES, STEP_LOSS, truncate_events
from bnexp.runs.loggers import NEW_RUN, Logger, RecordedProgress

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

# The Custom Scalars tab: each entry is one chart that shows several tags of all selected runs. The other tabs
# sort tags by name, and so begin with images_per_s and lr; here speed is last.
LAYOUT = {
    "bnexp": {
        "accuracy": ["Multiline", ["train/accuracy", "val/accuracy", "test/accuracy"]],
        "loss": ["Multiline", ["train/loss", "val/loss", "test/loss"]],
        "train_eval, test": ["Multiline", ["train_eval/accuracy", "test/accuracy"]],
        "learning rate": ["Multiline", ["lr"]],
        "images per second": ["Multiline", ["images_per_s"]],
    }
}

LEFT_OUT = ("epoch_s",)  # says no more than images_per_s; metrics.csv has it


class TensorBoardLogger(Logger):
    """Scalars per epoch, with the same tags in every run: TensorBoard then draws the runs in one chart.

    ``every``: write every n-th step's loss. ``histograms``: also write those of weights, gradients and
    buffers. ``hparams``: the values that the HParams tab shows beside the run's final metrics. Event files
    that exist already are truncated to ``progress``. ``layout``: the charts of the Custom Scalars tab.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every: int,
        histograms: bool,
        hparams: Mapping[str, float | str],
        progress: RecordedProgress = NEW_RUN,
        layout: Mapping[str, Any] | None = LAYOUT,
    ) -> None:
        from torch.utils.tensorboard import SummaryWriter

        tags = {*progress.tags, STEP_LOSS}
        truncate_events(folder, epoch=progress.epoch, step=progress.step, tags=tags)
        _WriterThreadHook.install()
        self.writer: SummaryWriter = SummaryWriter(str(folder))
        self.every, self.histograms, self.hparams = every, histograms, dict(hparams)
        self._tags = set(progress.tags)
        if layout is not None:
            self.writer.add_custom_scalars(layout)

    def text(self, tag: str, markdown: str) -> None:
        self.writer.add_text(tag, markdown, 0)

    def steps(self, first_step: int, losses: list[float]) -> None:
        for step, loss in enumerate(losses, first_step):
            if step % self.every == 0:
                self.writer.add_scalar(STEP_LOSS, loss, step)

    def scalars(self, values: Mapping[str, float], position: int) -> None:
        """A point of each chart; ``position`` is an epoch, or a step of a descent."""
        for tag, value in values.items():
            self.writer.add_scalar(tag, value, position)
        self._tags |= values.keys()

    def epoch(self, values: dict[str, float], epoch: int, model: nn.Module) -> None:
        self.scalars({tag: value for tag, value in values.items() if tag not in LEFT_OUT}, epoch)
        if self.histograms:
            self._add_histograms(model, epoch)
        self.writer.flush()

    def measurement(
        self, probe: str, index: Sequence[str], rows: Sequence[Mapping[str, float | str]], step: int
    ) -> None:
        for row in rows:
            prefix = "/".join([f"{PROBES}{probe}", *(str(row[column]) for column in index)])
            for column, value in row.items():
                if column not in index:
                    self.writer.add_scalar(f"{prefix}/{column}", value, step)

    def final(self, values: dict[str, float], epoch: int) -> None:
        for tag in values.keys() - self._tags:
            self.writer.add_scalar(tag, values[tag], epoch)
        if self.hparams:
            from torch.utils.tensorboard.summary import hparams

            # SummaryWriter.add_hparams would write a second file, which TensorBoard shows as another run.
            # The list of columns is left out: TensorBoard would take that of one run for all sweeps. Without
            # it, it collects the columns of all runs.
            _, *session = hparams(self.hparams, values)
            for summary in session:
                self.writer._get_file_writer().add_summary(summary)

    def _add_histograms(self, model: nn.Module, epoch: int) -> None:
        for name, parameter in model.named_parameters():
            self.writer.add_histogram(f"weights/{name}", parameter.detach().float().cpu(), epoch)
            if parameter.grad is not None:
                self.writer.add_histogram(f"gradients/{name}", parameter.grad.float().cpu(), epoch)
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point():
                self.writer.add_histogram(f"running/{name}", buffer.float().cpu(), epoch)

    def close(self) -> None:
        self.writer.close()


class _WriterThreadHook:
    """A threading.excepthook that prints nothing for the thread of TensorBoard's event writer.

    That thread stores its error, and the next write raises it in the run, which reports it. The traceback
    that Python prints for the thread itself would be a second report. Other threads' errors go to ``hook``.
    """

    MODULE = "tensorboard.summary.writer.event_file_writer"

    def __init__(self, hook: Callable[[threading.ExceptHookArgs], object]) -> None:
        self.hook = hook

    def __call__(self, error: threading.ExceptHookArgs) -> None:
        if type(error.thread).__module__ != self.MODULE:
            self.hook(error)

    @classmethod
    def install(cls) -> None:
        if not isinstance(threading.excepthook, cls):
            threading.excepthook = cls(threading.excepthook)
