"""The cells of the main table, the same in the terminal, in Markdown and on the page."""

from __future__ import annotations

import math

from bnexp.report.analysis.group_summary import GroupSummary, Metric
from bnexp.report.analysis.statistical_tests import Difference
from bnexp.report.analysis.verdict import Comparison, GroupComparison
from bnexp.report.render.numbers import p_value, points

MARKS = {"better": "+", "worse": "-", "undecided": "~", "small": "o", "equivalent": "o"}
MEANINGS = {
    "+": "better",
    "-": "worse",
    "~": "not decided",
    "o": "smaller than what matters",
    "?": "provisional",
}


def header(comparison: Comparison) -> list[str]:
    """The columns' titles; the adjusted p has one where more than one comparison was made."""
    metric = comparison.metric
    value = "acc % mean±sd" if metric.is_accuracy else f"{metric.label} mean±sd"
    difference = "diff, points [95% CI]" if metric.is_accuracy else "diff [95% CI]"
    return [comparison.grouping.title, "n", "div", value, difference, "p", "p.adj", "wins", ""]


def cells(row: GroupSummary, comparison: Comparison) -> list[str]:
    one = comparison.of(row)
    baseline = one is None and any(other.baseline is row for other in comparison.comparisons)
    name = (row.group.value or "all runs") + (" *" if baseline else "")
    first = [name, str(len(row.values)), str(len(row.diverged)), _level(row, comparison.metric)]
    if one is None or one.difference.n == 0:
        return [*first, "", "", "", "", ""]
    tested = one.difference.n >= 3 and not math.isnan(one.difference.p)
    wins = f"{one.ahead}/{one.difference.n}" if one.paired else "-"
    return [
        *first,
        difference(one, comparison.metric),
        p_value(one.difference.p) if tested else "",
        p_value(one.p_adjusted) if tested else "",
        wins,
        mark(one),
    ]


def difference(one: GroupComparison, metric: Metric) -> str:
    """The difference, always, and its interval where there is one."""
    found = one.difference
    if found.n == 2 and one.differences:
        return " and ".join(points(value, metric) for value in one.differences)
    return interval(found, metric)


def interval(found: Difference, metric: Metric) -> str:
    """Mean [low, high], or the mean alone where that is all there is."""
    if found.n < 3 or math.isnan(found.low):
        return points(found.mean, metric)
    low, high = points(found.low, metric), points(found.high, metric)
    return f"{points(found.mean, metric)} [{low}, {high}]"


def mark(one: GroupComparison) -> str:
    sign = MARKS.get(one.outcome, "")
    return sign + "?" if sign in ("+", "-", "o") and one.provisional else sign


def legend(comparison: Comparison) -> str:
    """What the marks in the table mean, those that stand in it, and what counts as diverged."""
    used = dict.fromkeys(sign for one in comparison.comparisons for sign in mark(one))
    words = [f"{sign} {meaning}" for sign, meaning in MEANINGS.items() if sign in used]
    ways = [row.failure_kind for row in comparison.summaries if "chance" in row.failure_kind]
    return "  ".join([*words, *(["div: diverged or ended at chance"] if ways else [])])


def _level(row: GroupSummary, metric: Metric) -> str:
    decimals = 2 if metric.is_accuracy else 4
    if not row.values:
        return ""
    spread = "" if math.isnan(row.sd) else f" ± {row.sd:.{decimals}f}"
    return f"{row.mean:.{decimals}f}{spread}"
