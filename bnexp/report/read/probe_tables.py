"""probes/NAME.csv of a run's folder, read as far as it is undamaged."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bnexp.runs.folder import PROBE_FOLDER

Cell = float | str


@dataclass(frozen=True)
class ProbeTable:
    """The rows that one probe measured in one run, in the order of their steps."""

    rows: tuple[Mapping[str, Cell], ...]

    @cached_property
    def steps(self) -> list[int]:
        return sorted({int(row["step"]) for row in self.rows})

    def at(self, step: int) -> list[Mapping[str, Cell]]:
        """The rows of one step."""
        return [row for row in self.rows if row["step"] == step]

    def where(self, **cells: Cell) -> list[Mapping[str, Cell]]:
        """The rows with these cells."""
        return [row for row in self.rows if all(row[name] == cell for name, cell in cells.items())]


def read_probe_tables(folder: Path) -> dict[str, ProbeTable]:
    """The table of each probe of a run, by the probe's name; a damaged row ends its table."""
    tables = {path.stem: _read_table(path) for path in sorted((folder / PROBE_FOLDER).glob("*.csv"))}
    return {name: table for name, table in tables.items() if table.rows}


def _read_table(path: Path) -> ProbeTable:
    rows: list[Mapping[str, Cell]] = []
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            reader = csv.reader(file)
            columns = next(reader, [])
            for cells in reader:
                row = dict(zip(columns, map(_number_or_text, cells), strict=True))
                int(row["step"])
                rows.append(row)
    except (OSError, csv.Error, ValueError, KeyError):
        pass
    return ProbeTable(tuple(rows))


def _number_or_text(cell: str) -> Cell:
    try:
        return float(cell)
    except ValueError:
        return cell
