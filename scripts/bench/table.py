"""Measurements as rows: medians, paired ratios, Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Cell = str | float | None
Row = dict[str, Cell]


@dataclass(frozen=True)
class Table:
    """Rows with the same columns; ``note`` says how to read them."""

    title: str
    note: str
    rows: list[Row]

    def markdown(self) -> str:
        columns = list(self.rows[0])
        texts = [[tidy(row[name]) for name in columns] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]

        def line(cells: Sequence[str]) -> str:
            padded = (
                cell.ljust(width) if number == 0 else cell.rjust(width)
                for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
            )
            return f"| {' | '.join(padded)} |"

        rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
        return "\n".join([f"### {self.title}", "", self.note, "", *map(line, [columns, rule, *texts]), ""])


def tidy(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 20 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"


def interleaved(ways: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """What each way gives, ``repeats`` times in turn, so that a busy machine slows them alike."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            found[name].append(way())
    return found


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the quotients, each of two neighbours in time."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def spread(above: Sequence[float], below: Sequence[float]) -> str:
    """The smallest and the largest of those quotients."""
    quotients = [a / b for a, b in zip(above, below, strict=True)]
    return f"{min(quotients):.2f} to {max(quotients):.2f}"


median = statistics.median
