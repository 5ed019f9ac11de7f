"""metrics.csv with a row per epoch, and steps.csv with a row per step."""

from __future__ import annotations

import csv
import io
import logging
import os
from pathlib import Path
from typing import TextIO

from torch import nn

from bnexp.files import write_text
from bnexp.runs.loggers import NEW_RUN, Logger, RecordedProgress

log = logging.getLogger(__name__)

METRICS = tuple(f"{split}/{name}" for split in ("train", "val", "test") for name in ("loss", "accuracy"))
COLUMNS = (*METRICS, "lr", "images_per_s", "epoch_s")


class CsvLogger(Logger):
    """Appends to both files; an fsync at the end of every epoch makes their rows survive a power failure.

    Files that exist already are truncated to ``progress``.
    """

    def __init__(self, folder: Path, progress: RecordedProgress = NEW_RUN) -> None:
        self.metrics = _open_truncated(folder / "metrics.csv", ",".join(["epoch", *COLUMNS]), progress.epoch)
        self.losses = _open_truncated(folder / "steps.csv", "step,train/loss", progress.step)

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


def _open_truncated(path: Path, header: str, last: int) -> TextIO:
    """Opens a CSV file to append rows, after removing the rows whose number is above ``last``.

    A run that is killed has written rows after its last checkpoint.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if last and path.exists() else []
    rows = [line.strip() for line in lines[1:-1]]  # the last line has no line end: it is empty or incomplete
    rows = [row for row in rows if row.partition(",")[0].isdigit() and int(row.partition(",")[0]) <= last]
    if len(rows) != last:
        log.warning(f"{path}: has {len(rows)} of the first {last} rows; the others are lost")
    text = "".join(f"{row}\r\n" for row in [header, *rows])
    write_text(path, text)
    return path.open("a", newline="", encoding="utf-8")
