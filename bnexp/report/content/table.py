"""The cells of the main table, used by the terminal, Markdown and the page."""

from __future__ import annotations

import math

from bnexp.report.analysis.group_comparison import GroupComparison
from bnexp.report.analysis.group_summary import GroupSummary, Metric
from bnexp.report.analysis.statistical_tests import Difference, mean_sd
from bnexp.report.analysis.verdict import MIN_TESTED, Verdict
from bnexp.report.content.numbers import mean_and_sd, p_value, points

NAME, N, LOST_RUNS, MEAN, DIFFERENCE, P, P_ADJUSTED, WINS, MARK = range(9)  # the columns
MARKS = {"better": "+", "worse": "-", "undecided": "~", "small": "o", "equivalent": "o"}
MEANINGS = {
    "+": "better",
    "-": "worse",
    "~": "not decided",
    "o": "smaller than what matters",
    "?": "provisional or leaning",
    "!": "differs in more than the compared key",
}


def column_titles(verdict: Verdict) -> list[str]:
    metric = verdict.metric
    short_names = {"accuracy": "acc %", "balanced accuracy": "bal. acc %"}
    mean = f"{short_names.get(metric.name, metric.label)} mean±sd"
    difference = "diff, points [95% CI]" if metric.is_accuracy else "diff [95% CI]"
    return [verdict.grouping.title, "n", "lost", mean, difference, "p", "p.adj", "wins", ""]


def row_cells(summary: GroupSummary, verdict: Verdict) -> list[str]:
    """One group's row. A baseline has a star, and its cells about the difference are empty."""
    c = verdict.comparison_of(summary)
    is_baseline = any(other.baseline is summary for other in verdict.comparisons)
    name = (summary.group.value or "all runs") + (" *" if is_baseline else "")
    mean = _mean(summary, verdict.metric)
    cells = [name, str(len(summary.values)), str(len(summary.lost_runs)), mean]
    if c is None or c.difference.n == 0:
        return [*cells, "", "", "", "", mark(c) if c else ""]
    is_tested = c.difference.n >= MIN_TESTED and not math.isnan(c.difference.p)
    return [
        *cells,
        difference_cell(c),
        p_value(c.difference.p) if is_tested else "",
        p_value(c.p_adjusted) if is_tested else "",
        _wins(c),
        mark(c),
    ]


def difference_cell(c: GroupComparison) -> str:
    """The difference and its interval, where there are any; of two pairs both differences."""
    if c.difference.n == 0:
        return ""
    if c.difference.n == 2 and c.differences:
        return " and ".join(points(difference, c.metric) for difference in c.differences)
    return mean_and_interval(c.difference, c.metric)


def mean_and_interval(difference: Difference, metric: Metric) -> str:
    """``+0.30 [+0.25, +0.34]``; the mean alone where there is no interval."""
    mean = points(difference.mean, metric)
    if difference.n < MIN_TESTED or math.isnan(difference.low):
        return mean
    return f"{mean} [{points(difference.low, metric)}, {points(difference.high, metric)}]"


def mark(c: GroupComparison) -> str:
    """The outcome as one or two characters: "?" where it is provisional or leaning, "!" where confounded."""
    if c.is_confounded:
        return "!"
    sign = MARKS.get(c.outcome, "")
    if c.outcome == "leaning":
        sign = "+" if c.metric.sign * c.difference.mean > 0 else "-"
    if c.differs_in_stability and sign in ("", "~", "o"):
        return "+" if c.is_more_stable else "-"
    if c.leans_in_stability and not sign:
        return "+?" if c.is_more_stable else "-?"
    is_uncertain = c.is_provisional or c.outcome == "leaning"
    return sign + "?" if sign in ("+", "-", "o") and is_uncertain else sign


def mark_legend(verdict: Verdict) -> str:
    """The meaning of the marks that occur in the table, and of the column ``lost``."""
    occurring = {sign for c in verdict.comparisons for sign in mark(c)}
    texts = ["* baseline"] if verdict.comparisons else []
    texts += [f"{sign} {meaning}" for sign, meaning in MEANINGS.items() if sign in occurring]
    if verdict.family > 1:
        texts.append(f"p.adj: Holm over {verdict.family} tests")
    if any(summary.lost_keys for summary in verdict.summaries):
        texts.append(
            "lost: loss not finite, or at chance; where no run trained, acc % is that of the lost ones"
        )
    return "  ".join(texts)


def _wins(c: GroupComparison) -> str:
    """``3/5``: pairs in which the candidate is better; ``3/5 2=``: two of them are ties."""
    if not c.is_paired:
        return "-"
    return f"{c.wins}/{c.difference.n}" + (f" {c.ties}=" if c.ties else "")


def _mean(summary: GroupSummary, metric: Metric) -> str:
    """Mean ± deviation of the runs that trained; where none did, of the lost runs."""
    decimals = 2 if metric.is_accuracy else 4
    if summary.values:
        return mean_and_sd(summary.mean, summary.sd, decimals)
    return mean_and_sd(*mean_sd(summary.lost_values), decimals) if summary.lost_values else ""
