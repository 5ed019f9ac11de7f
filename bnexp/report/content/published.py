"""Whether a published value was reproduced: a one-sample t test of each group."""

from __future__ import annotations

import math

from bnexp.report.analysis.group_summary import GroupSummary
from bnexp.report.analysis.repeated_looks import with_equivalence
from bnexp.report.analysis.statistical_tests import ALPHA, paired_t_test
from bnexp.report.analysis.verdict import MIN_TESTED, Verdict
from bnexp.report.content.numbers import level, p_is, points, size, unit


def published_sentences(verdict: Verdict) -> list[str]:
    """One sentence a group; nothing where no value was given."""
    if verdict.published is None:
        return []
    deltas = [c.delta for c in verdict.comparisons if c.delta is not None]
    deltas += [run.delta for run in verdict.runs if run.delta is not None and verdict.metric.is_accuracy]
    delta = min(deltas, default=None)
    return [_sentence(summary, verdict, verdict.published, delta) for summary in verdict.summaries]


def _sentence(summary: GroupSummary, verdict: Verdict, published: float, delta: float | None) -> str:
    metric, values = verdict.metric, summary.values
    name = summary.group.full_label or "all runs"
    head = f"{name} against the published {level(published, metric)}"
    plain = paired_t_test(values, dict.fromkeys(values, published))
    if plain.n < MIN_TESTED or math.isnan(plain.p):
        return f"{head}: too few runs for a test ({plain.n})."
    difference = with_equivalence(plain, delta)
    interval = f"{points(difference.low, metric)} to {points(difference.high, metric)}"
    text = f"{head}: {points(difference.mean, metric)}{unit(metric)} ({interval}), {p_is(difference.p)}"
    if difference.p_equivalent <= ALPHA:
        return f"{text}: reproduced within {size(delta or 0, metric)}."
    if difference.p <= ALPHA:
        return f"{text}: not reproduced."
    return f"{text}: not decided; the published value lies within the interval."
