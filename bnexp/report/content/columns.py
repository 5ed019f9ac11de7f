"""Which columns of the main table say something."""

from __future__ import annotations

from collections.abc import Sequence

from bnexp.report.content.table import MEAN, P_ADJUSTED


def informative_columns(rows: Sequence[Sequence[str]], family: int) -> list[int]:
    """The columns to show; ``rows`` are those below the titles.

    Left out are empty columns, and adjusted p values where a single test leaves p as it is.
    """
    return [
        i
        for i in range(len(rows[0]))
        if i <= MEAN or (any(row[i] for row in rows) and not (i == P_ADJUSTED and family < 2))
    ]
