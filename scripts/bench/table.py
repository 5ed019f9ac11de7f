"""Tables of measurements: medians, ratios of neighbouring measurements, Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Cell = str | float | None
Row = dict[str, Cell]

median = statistics.median


@dataclass(frozen=True)
class Table:
    """Rows with the same columns; ``note`` says how to read them."""

    title: str
    note: str
    rows: list[Row]

    def markdown(self) -> str:
        columns = list(self.rows[0])
        texts = [[format_cell(row[name]) for name in columns] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]

        def line(cells: Sequence[str]) -> str:
            padded = (
                cell.ljust(width) if number == 0 else cell.rjust(width)
                for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
            )
            return f"| {' | '.join(padded)} |"

        rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
        return "\n".join([f"### {self.title}", "", self.note, "", *map(line, [columns, rule, *texts]), ""])


def format_cell(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 20 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"


def measure_in_turn(measurements: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Takes the measurements in turn, ``repeats`` times, so that a busy machine slows all of them alike."""
    results: dict[str, list[float]] = {name: [] for name in measurements}
    for _ in range(repeats):
        for name, measure in measurements.items():
            results[name].append(measure())
    return results


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median of the ratios, each of two measurements that were taken one after the other."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def ratio_range(numerators: Sequence[float], denominators: Sequence[float]) -> str:
    """The smallest and the largest of those ratios."""
    ratios = [a / b for a, b in zip(numerators, denominators, strict=True)]
    return f"{min(ratios):.2f} to {max(ratios):.2f}"


def ratio_quartiles(numerators: Sequence[float], denominators: Sequence[float]) -> str:
    """The lower and the upper quartile of those ratios."""
    ratios = [a / b for a, b in zip(numerators, denominators, strict=True)]
    quartiles = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios
    return f"{quartiles[0]:.2f} to {quartiles[-1]:.2f}"
