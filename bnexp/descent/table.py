"""A table of numbers as data for regression: a file of the user's own, or scikit-learn's diabetes data."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bnexp.errors import UserError, bad_value, one_line

DELIMITERS = ("\t", ";", ",")  # the first that the first line has; else white space
KEY = "function.table"


@dataclass(frozen=True)
class Table:
    """Standardised columns: each has mean 0 and standard deviation 1 over the rows."""

    names: tuple[str, ...]  # of the features
    features: Tensor  # (N, d), float64
    target: Tensor  # (N,), float64


def load_table(path: str | None, rows: int | None) -> Table:
    """The table in a file, or the diabetes data; only its first ``rows`` rows unless that is None.

    Raises UserError for a file that is no table of numbers: text, a hole, one column, one row, a column that
    is constant.
    """
    name = f"{KEY}={path or 'null'}"
    header, values = _diabetes() if path is None else _read(Path(path).expanduser(), name)
    if rows is not None and rows > len(values):
        raise bad_value("function.rows", rows, f"must be at most {len(values)}, the rows of the table")
    values = values[:rows]
    if values.shape[1] < 2:
        raise UserError(f"{name}: has one column; needs at least one feature, and the target as the last one")
    if len(values) < 2:
        raise UserError(f"{name}: has one row; at least two are needed")
    deviations, means = torch.std_mean(values, dim=0, correction=0)
    # A constant column has a deviation of 0 up to rounding.
    is_constant = deviations <= 1e-14 * values.abs().amax(0)
    for column, constant in zip(header, is_constant.tolist(), strict=True):
        if constant:
            raise UserError(f"{name}: column {column} is constant and cannot be standardised; leave it out")
    standardised = (values - means) / deviations
    return Table(header[:-1], standardised[:, :-1].contiguous(), standardised[:, -1].contiguous())


def _diabetes() -> tuple[tuple[str, ...], Tensor]:
    """442 patients: ten measurements, and the progression of the disease a year later (Efron et al. 2004)."""
    from sklearn.datasets import load_diabetes

    data = load_diabetes(scaled=False)
    values = torch.cat([torch.from_numpy(data.data), torch.from_numpy(data.target)[:, None]], 1)
    return (*map(str, data.feature_names), "target"), values.double()


def _read(path: Path, name: str) -> tuple[tuple[str, ...], Tensor]:
    """The names of the columns, and the numbers (N, columns). A first line with text is the header."""
    try:
        text = path.read_text(encoding="utf-8").removeprefix("\ufeff")
    except OSError as error:
        raise UserError(f"{name}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{name}: is no text in UTF-8") from None
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise UserError(f"{name}: has no row")
    delimiter = next((character for character in DELIMITERS if character in lines[0][1]), None)
    cells = [(number, _split(line, delimiter)) for number, line in lines]
    header = tuple(f"x{i + 1}" for i in range(len(cells[0][1])))
    if not any(_is_number(cell) for cell in cells[0][1]):
        header = tuple(cells.pop(0)[1])
        if not cells:
            raise UserError(f"{name}: has a header and no row")
    numbers = [_numbers(row, header, f"{name}: line {number}") for number, row in cells]
    return header, torch.tensor(numbers, dtype=torch.float64)


def _split(line: str, delimiter: str | None) -> list[str]:
    if delimiter is None:
        return line.split()
    return [cell.strip() for cell in next(csv.reader(io.StringIO(line), delimiter=delimiter))]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(row: list[str], header: tuple[str, ...], place: str) -> list[float]:
    """The numbers of one row. Raises UserError for a hole, for text, and for a row of another length."""
    if len(row) != len(header):
        raise UserError(f"{place} has {len(row)} columns, and the first line {len(header)}")
    for column, cell in zip(header, row, strict=True):
        if not cell or cell.lower() in ("nan", "na", "null", "none", "?"):
            raise UserError(f"{place}, column {column}: is empty; fill or remove the row")
        if not _is_number(cell) or not abs(float(cell)) < float("inf"):
            raise UserError(one_line(f"{place}, column {column}: {cell!r} is no finite number"))
    return [float(cell) for cell in row]
