"""metrics.csv, read as far as it is undamaged."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from bnexp.errors import one_line

METRICS_FILE = "metrics.csv"


def read_metrics(folder: Path) -> tuple[dict[str, list[float]], str]:
    """The columns of metrics.csv up to the first damaged row (nan where empty), and what is wrong, or "".

    A program for tables may have put a byte order mark in front.
    """
    try:
        with (folder / METRICS_FILE).open(newline="", encoding="utf-8-sig", errors="replace") as file:
            return _read_columns(csv.reader(file))
    except OSError as error:
        return {}, error.strerror or "cannot be read"
    except csv.Error as error:  # a cell longer than 128 KiB, for instance
        return {}, one_line(error)


def _read_columns(rows: Iterator[list[str]]) -> tuple[dict[str, list[float]], str]:
    names = next(rows, [])
    if not names or names[0] != "epoch":
        return {}, "no header; no curves from it"
    columns: dict[str, list[float]] = {name: [] for name in names}
    for line, row in enumerate(rows, 2):
        try:
            numbers = [float(cell) if cell else math.nan for cell in row]
        except ValueError:
            numbers = []
        if len(numbers) != len(names) or numbers[0] != line - 1:
            return columns, f"line {line} cannot be read; its curves end before it"
        for name, number in zip(names, numbers, strict=True):
            columns[name].append(number)
    return columns, ""
