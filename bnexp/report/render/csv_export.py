"""Tables as CSV: comparison.csv (a row a group), runs.csv (a row a run), curves.csv (long form)."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from bnexp.report.analysis.verdict import Verdict
from bnexp.report.content.group_columns import group_columns
from bnexp.report.content.run_columns import curve_columns, run_columns


def groups_csv(verdict: Verdict) -> str:
    """A column for each key that differs and each statistic; accuracies in percent."""
    return _csv(group_columns(verdict))


def runs_csv(verdict: Verdict) -> str:
    """Each run: group, outcome (``lost`` does not count), the keys that differ, metrics, cost, folder."""
    rows = [(summary, run) for summary in verdict.summaries for run in summary.group.runs]
    own: dict[str, list[Any]] = {
        "group": [summary.group.name for summary, _ in rows],
        "outcome": ["lost" if run.pair_key in s.lost_keys else "finished" for s, run in rows],
    }
    return _csv(own | run_columns([run for _, run in rows]))


def curves_csv(verdict: Verdict) -> str:
    """One row for each run, epoch and metric."""
    return _csv(curve_columns(verdict.runs))


def _csv(columns: Mapping[str, Sequence[Any]]) -> str:
    """None and nan become empty cells."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow("" if cell is None or cell != cell else cell for cell in row)
    return text.getvalue()
