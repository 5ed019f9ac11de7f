"""A table as a dictionary of arrays, for notebooks and pandas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from bnexp.errors import UserError

MAX_ROWS = 20  # that a notebook shows


class Columns(dict[str, np.ndarray]):
    """The columns of a table by name: arrays (rows,) of numbers, or of objects where some cells are texts."""

    @classmethod
    def of(cls, columns: Mapping[str, Sequence[Any]]) -> Columns:
        """Numbers become float64 or int64 arrays; None among numbers becomes nan."""
        return cls((name, _array(values)) for name, values in columns.items())

    @property
    def rows(self) -> int:
        return max((len(column) for column in self.values()), default=0)

    def to_pandas(self) -> Any:
        """The same as a ``pandas.DataFrame``. Raises UserError where pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise UserError("to_pandas: pandas is not installed (pip install pandas)") from None
        return pandas.DataFrame(dict(self))

    def _repr_html_(self) -> str:
        """How a notebook shows it: the first rows."""
        head = "".join(f"<th>{escape(name)}</th>" for name in self)
        rows = zip(*(column[:MAX_ROWS] for column in self.values()), strict=True)
        body = "".join(
            f"<tr>{''.join(f'<td>{escape(_cell(value))}</td>' for value in row)}</tr>" for row in rows
        )
        note = f"<p>the first {MAX_ROWS} of {self.rows} rows</p>" if self.rows > MAX_ROWS else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"


def _array(values: Sequence[Any]) -> np.ndarray:
    kinds = {type(value) for value in values}
    if kinds and kinds <= {int}:
        return np.asarray(values, np.int64)
    if kinds and kinds <= {int, float, type(None)}:
        return np.asarray([np.nan if value is None else value for value in values], np.float64)
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
