"""probes/NAME.csv: the rows that each probe of a run measured."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from bnexp.files import write_text
from bnexp.runs.folder import PROBE_FOLDER
from bnexp.runs.loggers import NEW_RUN, Logger, RecordedProgress


class ProbeLogger(Logger):
    """Appends rows. An fsync after each measurement makes them survive a power failure.

    Rows that exist already are kept up to the step of ``progress``.
    """

    def __init__(self, folder: Path, progress: RecordedProgress = NEW_RUN) -> None:
        self.folder = folder / PROBE_FOLDER
        self.files: dict[str, tuple[TextIO, list[str]]] = {}
        for path in self.folder.glob("*.csv"):
            _truncate(path, progress.step)

    def measurement(
        self, probe: str, index: Sequence[str], rows: Sequence[Mapping[str, float | str]], step: int
    ) -> None:
        if probe not in self.files:
            self.files[probe] = self._open(
                probe, ["step", *dict.fromkeys(column for row in rows for column in row)]
            )
        file, columns = self.files[probe]
        csv.DictWriter(file, columns).writerows({"step": step, **row} for row in rows)
        file.flush()
        os.fsync(file.fileno())

    def _open(self, probe: str, columns: list[str]) -> tuple[TextIO, list[str]]:
        self.folder.mkdir(exist_ok=True)
        path = self.folder / f"{probe}.csv"
        header = ",".join(columns)
        lines = _lines(path) if path.exists() else []
        if len(lines) > 1 and lines[0] != header:
            raise ValueError(f"{path} has the columns {lines[0]}, not {header}")
        if lines[:1] != [header]:
            write_text(path, f"{header}\r\n")
        return path.open("a", newline="", encoding="utf-8"), columns

    def close(self) -> None:
        for file, _ in self.files.values():
            file.close()


def _lines(path: Path) -> list[str]:
    """The complete lines: a process that was killed may have left a part of one."""
    return [line.strip() for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def _truncate(path: Path, last_step: int) -> None:
    """Removes the rows after ``last_step``; all rows where the run has not taken a step."""
    header, *rows = _lines(path) or [""]
    rows = [row for row in rows if last_step > 0 and int(row.partition(",")[0] or 0) <= last_step]
    write_text(path, "".join(f"{line}\r\n" for line in [header, *rows]))
