"""The groups as a table, for comparison.csv and Python: a column for each axis and each statistic."""

from __future__ import annotations

import math
from typing import Any

from bnexp.report.analysis.balanced import BalancedAccuracy, balanced_accuracy_of
from bnexp.report.analysis.group_comparison import GroupComparison
from bnexp.report.analysis.group_summary import GroupSummary
from bnexp.report.analysis.verdict import MIN_TESTED, Verdict
from bnexp.report.content.table import mark


def group_columns(verdict: Verdict) -> dict[str, list[Any]]:
    """One row a group. Accuracies are in percent and their differences in points; None where not known."""
    keys = dict.fromkeys(key for summary in verdict.summaries for key in summary.group.settings)
    balanced = [balanced_accuracy_of(summary, verdict) for summary in verdict.summaries]
    rows = [
        {key: summary.group.settings.get(key) for key in keys}
        | _statistics(summary, verdict)
        | (_balanced(accuracy) if any(balanced) else {})
        for summary, accuracy in zip(verdict.summaries, balanced, strict=True)
    ]
    return {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}


def _statistics(summary: GroupSummary, verdict: Verdict) -> dict[str, Any]:
    is_baseline = any(c.baseline is summary for c in verdict.comparisons)
    return {
        "group": summary.group.name,
        "is_baseline": is_baseline,
        "metric": verdict.metric.key,
        "epoch_rule": verdict.rule,
        "n": len(summary.values),
        "lost": len(summary.lost_runs),
        "mean": _number(summary.mean),
        "sd": _number(summary.sd),
        **_difference(verdict.comparison_of(summary)),
        "images_per_s": _number(summary.images_per_s),
        "parameters": _number(summary.parameters),
    }


def _difference(c: GroupComparison | None) -> dict[str, Any]:
    names = (
        "baseline", "pairs", "difference", "difference_sd", "ci_low", "ci_high", "p", "p_adjusted", "test",
        "wins", "ties", "outcome", "mark",
    )  # fmt: skip
    if c is None or c.difference.n == 0:
        return dict.fromkeys(names)
    d = c.difference
    is_tested = d.n >= MIN_TESTED
    numbers = (d.low, d.high, d.p, c.p_adjusted) if is_tested else (None,) * 4
    values = (
        c.baseline.group.name, d.n, d.mean, d.sd, *numbers, d.method if is_tested else None,
        c.wins if c.is_paired else None, c.ties if c.is_paired else None, c.outcome, mark(c),
    )  # fmt: skip
    return {name: _number(value) for name, value in zip(names, values, strict=True)}


def _balanced(accuracy: BalancedAccuracy | None) -> dict[str, Any]:
    """The columns of balanced accuracy, which exist where the classes of the test set are uneven."""
    numbers: tuple[Any, ...] = (None,) * 5
    if accuracy is not None:
        d = accuracy.difference
        difference = (None,) * 3 if d is None or d.n == 0 else (d.mean, d.low, d.high)
        numbers = (accuracy.mean, accuracy.sd, *difference)
    names = ("mean", "sd", "difference", "ci_low", "ci_high")
    return {f"balanced_accuracy_{name}": _number(value) for name, value in zip(names, numbers, strict=True)}


def _number(value: Any) -> Any:
    """None for nan."""
    return None if isinstance(value, float) and math.isnan(value) else value
